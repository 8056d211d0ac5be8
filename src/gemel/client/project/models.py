"""Language models of a project: pulled and configured by Docker's model runner, as in Compose.

The plugin ``docker model`` is called with ``ls --json``, ``pull``, ``configure`` and ``status
--json``, which names the server. A model whose file names a server needs none of that.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from typing import Any

from gemel.client import plugins
from gemel.client.project.display import Progress
from gemel.client.project.pool import each
from gemel.compose import model as models
from gemel.compose.project import Project
from gemel.compose.provider import shown as first_line
from gemel.errors import Failed, GemelError
from gemel.host.talk import Talks

Json = dict[str, Any]
#: Seconds for a question, and for a pull: models have gigabytes.
_TAKE = 60.0
_PULL = 4 * 3600.0
#: From this version on it takes flags for the program that runs the model.
_FLAGS_SINCE = (1, 0, 6)
_MOST_LINES = 100


class Models:
    """The models that some services of a project use."""

    def __init__(self, project: Project, services: Collection[str]) -> None:
        self.used = models.used(project, services)
        self._marks = project.marks
        self.talks = Talks()
        self._env = plugins.environment(project.environment)

    @property
    def by_runner(self) -> dict[str, Json]:
        """Those that Docker's model runner serves."""
        return {key: one for key, one in self.used.items() if not models.endpoint(one)}

    def prepare(self, shown: Progress) -> str:
        """Has the runner get and configure its models; its URL. Raises GemelError."""
        path = plugins.find("model")
        if path is None:
            raise Failed("Docker's model plugin is not installed", resolution=REMEDY)
        there = self._there(path)
        flags = plugins.version(path, self.talks, self._env) >= _FLAGS_SINCE

        def work(key: str) -> None:
            try:
                self._one(path, key, there, flags, shown)
            except GemelError as problem:
                shown.failed(f"Model {key}", first_line(problem.brief))
                mark = self._marks.get(f"models.{key}")
                problem.brief = f"{mark}: {problem.brief}" if mark else problem.brief
                raise

        for problem in each(self.by_runner, work).values():
            raise problem
        return self._server(path)

    def _one(
        self, path: str, key: str, there: Collection[str], flags: bool, shown: Progress
    ) -> None:
        model, text = self.by_runner[key], f"Model {key}"
        name = str(model["model"])

        def told(line: str) -> None:
            if line:
                shown.working(text, f"Pulling {line}")

        if name not in there:
            shown.working(text, "Pulling")
            self._run(path, ["pull", name], timeout=_PULL, told=told)
        shown.working(text, "Configuring")
        argv = ["configure"]
        if model.get("context_size"):
            argv += ["--context-size", str(model["context_size"])]
        argv.append(name)
        if model.get("runtime_flags") and flags:
            argv += ["--", *model["runtime_flags"]]
        self._run(path, argv)
        shown.done(text, "Configured")

    def _there(self, path: str) -> set[str]:
        """Names of the models that need not be pulled."""
        found = self._json(path, ["ls", "--json"])
        entries = found if isinstance(found, list) else []
        tags = [one.get("tags") for one in entries if isinstance(one, dict)]
        return {str(tag) for some in tags if isinstance(some, list) for tag in some}

    def _server(self, path: str) -> str:
        found = self._json(path, ["status", "--json"])
        url = found.get("endpoint") if isinstance(found, dict) else None
        if not isinstance(url, str) or not url or not url.isprintable():
            raise Failed("docker model status does not say where the model runner answers")
        return url

    def _json(self, path: str, argv: list[str]) -> Any:
        text = self._run(path, argv)
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            what = f"docker model {argv[0]} says what is not understood: {first_line(text)}"
            raise Failed(what) from None

    def _run(
        self,
        path: str,
        argv: list[str],
        timeout: float = _TAKE,
        told: Callable[[str], None] | None = None,
    ) -> str:
        """Runs the plugin to its end; what it said. Raises Failed."""
        said: list[str] = []

        def line(raw: bytes) -> None:
            said.append(raw.decode("utf-8", "replace"))
            if told is not None:
                del said[:-_MOST_LINES]
                told(first_line(said[-1].rpartition("\r")[2]))

        ended = self.talks.run([path, *argv], line, timeout=timeout, env=self._env)
        text = "\n".join(said)
        if ended.status:
            raise Failed(
                f"docker model {argv[0]} failed with status {ended.status}",
                (ended.errors or text)[-2000:],
                REMEDY if argv[0] in ("ls", "status") else "",
            )
        return text


REMEDY = (
    'start Docker\'s model runner, or name a server: x-gemel: {endpoint: "http://HOST:PORT/v1"}'
    " on the model"
)


def has_runner() -> bool:
    """Whether Docker's model plugin is installed."""
    return plugins.find("model") is not None


def local_warning(url: str) -> str:
    """A word on a server that no service can reach, or nothing."""
    if not models.is_local(url):
        return ""
    return (
        f"Docker's model runner is told of as {url}, which in a service is the service itself;"
        " x-gemel.endpoint on the model names another address"
    )
