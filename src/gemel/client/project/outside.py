"""What an ``up`` needs of programs outside of the project: providers, and servers of models.

They are asked before the plan of the containers is made, since what they say is part of what
the containers are made from: another answer makes a container anew, as in Compose.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from gemel.client.engine import Client
from gemel.client.plugins import provider as program_of
from gemel.client.project import remembered
from gemel.client.project.display import Progress
from gemel.client.project.models import Models, has_runner, local_warning
from gemel.client.project.providers import Providers, missing
from gemel.compose import model as models
from gemel.compose import provider
from gemel.compose.assemble import Origins
from gemel.compose.lint import Finding
from gemel.compose.observed import Observed
from gemel.compose.plan import UpOptions, plan_up, targets
from gemel.compose.problems import Path, Place, dotted
from gemel.compose.project import Project
from gemel.compose.steps import Kind, Plan, Step
from gemel.compose.support import Level


class Doing(Protocol):
    """The ``up`` that this is a part of."""

    client: Client
    project: Project
    options: UpOptions

    def progress(self, title: str, *, quiet: bool = False) -> Progress: ...
    def look(self) -> Observed: ...
    def detached(self, plan: Plan) -> None: ...


class Outside:
    """Asks them, and changes the project and the options of an ``up`` by what they say."""

    def __init__(self, up: Doing) -> None:
        self.up = up
        self._providers = Providers(up.project)
        self._place = up.client.place
        self._known = remembered.read(self._place, up.project.name)

    def run(self, observed: Observed) -> tuple[Observed, list[str]]:
        """Does it; what is there then, and warnings. Raises GemelError.

        What was brought up before a provider failed stays, but for containers.
        """
        names = targets(self.up.project, self.up.options)
        models_ = Models(self.up.project, names)
        wanted = [one.name for one in self._providers.services(names)]
        left = [name for name in wanted if name not in self.up.options.provided]
        before = msgspec.json.encode(self._known)
        try:
            with self._providers.talks.guarded(), models_.talks.guarded():
                warnings = self._models(models_)
                warnings += self._providers.check(left)
                warnings += self._tell()
                while left:
                    wave = self._first(left)
                    observed = self._wave(wave, observed)
                    left = [name for name in left if name not in wave]
                    warnings += self._tell()
        finally:
            if msgspec.json.encode(self._known) != before:
                remembered.write(self._place, self.up.project.name, self._known)
        return observed, list(dict.fromkeys(warnings))

    def would(self) -> list[str]:
        """Makes the project as it was told last; what would be done beside the plan's steps."""
        names = targets(self.up.project, self.up.options)
        self._tell_models()
        self._tell()
        used = Models(self.up.project, names).by_runner
        return [
            f"configure model: {key} ({one['model']}, by docker model)" for key, one in used.items()
        ]

    def _models(self, used: Models) -> list[str]:
        warning = ""
        if used.by_runner:
            with self.up.progress("Running") as shown:
                self._known.models = used.prepare(shown)
            warning = local_warning(self._known.models)
        self._tell_models()
        return [warning] if warning else []

    def _tell_models(self) -> None:
        def server(key: str) -> str:
            return models.endpoint(self.up.project.models[key]) or self._known.models

        self.up.project = models.told(self.up.project, server)

    def _tell(self) -> list[str]:
        """Puts into the project what is known of providers; warnings."""
        self.up.project, warnings = provider.told(self.up.project, self._known.providers)
        return warnings

    def _first(self, left: Sequence[str]) -> list[str]:
        """Those providers that need none of the others first."""
        project = self.up.project
        return [n for n in left if not set(project.with_dependencies([n])) - {n} & set(left)]

    def _wave(self, wave: list[str], observed: Observed) -> Observed:
        """Brings up providers, after what they depend on; what is there then."""
        options = msgspec.structs.replace(
            self.up.options, services=tuple(wave), always_recreate_deps=False, remove_orphans=False
        )
        plan = plan_up(self.up.project, observed, options)
        self.up.detached(msgspec.structs.replace(plan, unchanged=()))
        provided = (*self.up.options.provided, *wave)
        self.up.options = msgspec.structs.replace(self.up.options, provided=provided)
        others = [step for step in plan.steps if step.kind is not Kind.PROVIDE]
        return self.up.look() if others else observed

    def provide(self, step: Step, shown: Progress) -> None:
        """Carries out a step. Called in threads."""
        self._known.providers[step.service] = self._providers.up(step.service, shown)


def findings(project: Project, origins: Origins | None, services: Sequence[str]) -> list[Finding]:
    """Programs and servers that these services need and that are not there, with their places."""
    found: list[Finding] = []
    if origins is None:
        return found
    for name in services:
        kind = provider.kind(project.service(name))
        if kind and program_of(kind) is None:
            path: Path = ("services", name, "provider", "type")
            found.append(_refused(name, path, missing(kind), origins.place(path)))
    runner = has_runner()
    for name in services if not runner else ():
        if project.service(name).provider is not None:
            continue
        for key in models.uses(project.service(name)):
            if models.endpoint(project.models.get(key) or {}):
                continue
            path = ("services", name, "models", key)
            mapped = origins.has(path)
            place = origins.place(path, key=True) if mapped else origins.item(path[:-1], key)
            found.append(_refused(name, path, _NO_SERVER, place))
    return found


_NO_SERVER = (
    "nothing serves it. Name an OpenAI-compatible server that you run, or a service of the file:"
    ' x-gemel: {endpoint: "http://HOST:PORT/v1"} on the model; or install Docker\'s model plugin'
)


def _refused(service: str, path: Path, words: str, place: Place) -> Finding:
    return Finding(service, dotted(path), Level.REFUSED, "", words, place)
