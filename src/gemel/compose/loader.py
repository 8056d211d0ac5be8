"""From files to a project: the whole pipeline in its order."""

from __future__ import annotations

import os.path
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from gemel.compose import discover, dotenv, yamlread
from gemel.compose.assemble import Assembler, Origins
from gemel.compose.consistency import Consistency, required
from gemel.compose.files import DiskReader, Fetching, Reader, Remote, no_remote
from gemel.compose.interpolate import BadTemplate, Variables, substitute
from gemel.compose.normalize import normalize, project_name
from gemel.compose.paths import shown
from gemel.compose.problems import Path, Problems, WrongFiles
from gemel.compose.project import Project, Service
from gemel.compose.raw import reading
from gemel.errors import InvalidInput

Json = dict[str, Any]


class Loaded(msgspec.Struct, frozen=True):
    """A project and what a person should be told, in order, each once."""

    project: Project
    warnings: tuple[str, ...] = ()
    origins: Origins | None = None
    """Where everything stands in the files, for ``lint``."""


def load(
    files: Sequence[str] = (),
    *,
    cwd: str,
    env: Mapping[str, str],
    project_dir: str = "",
    env_files: Sequence[str] = (),
    profiles: Sequence[str] = (),
    name: str = "",
    interpolate: bool = True,
    consistency: bool = True,
    resolve_env: bool = True,
    reader: Reader | None = None,
    remote: Remote = no_remote,
) -> Loaded:
    """Loads a project.

    files: as given with -f, relative to ``cwd``, ``-`` for standard input; none:
    COMPOSE_FILE, or what is found in ``cwd`` or above. env: the process
    environment. project_dir: --project-directory. name: -p. resolve_env: read
    env_file and label_file into environment and labels. remote: fetches what is at
    ``oci://`` and gives the path of the Compose file.

    Raises WrongFiles (an InvalidInput), whose details list every error with file,
    line, column and the line itself; NotFound if there is no file.
    """
    with reading(raw=not interpolate):
        return _Loader(reader or DiskReader(), cwd, env, remote).load(
            files, project_dir, env_files, profiles, name, interpolate, consistency, resolve_env
        )


class _Loader:
    def __init__(self, reader: Reader, cwd: str, env: Mapping[str, str], remote: Remote) -> None:
        self.reader = reader
        self.remote = Fetching(remote)
        self.cwd = os.path.abspath(cwd)
        self.process = dict(env)
        self.environment = {"PWD": self.cwd, **env}
        self.problems = Problems()
        self.missing: dict[str, None] = {}
        self.warnings: dict[str, None] = {}
        self.unsure = False
        """Whether an env file is wrong, so that what is not set may stand there."""

    def load(
        self,
        files: Sequence[str],
        project_dir: str,
        env_files: Sequence[str],
        profiles: Sequence[str],
        name: str,
        interpolate: bool,
        consistency: bool,
        resolve_env: bool,
    ) -> Loaded:
        if not env_files and self.environment.get("COMPOSE_ENV_FILES"):
            env_files = self.environment["COMPOSE_ENV_FILES"].split(",")
        self._dotenv(env_files, os.path.normpath(os.path.join(self.cwd, project_dir)))
        fetched: list[str] = []

        def remote(reference: str) -> str:
            fetched.append(self.remote(reference))
            return fetched[-1]

        paths = discover.find(
            self.cwd, files, self.environment, self.reader, self.warnings, project_dir, remote
        )
        local = self._folder([] if paths[0] in fetched else paths, project_dir)
        # as Compose: what lies beside the first file from a registry is found there
        folder = os.path.dirname(fetched[0]) if fetched else local
        if not env_files:
            self._dotenv((), local)
        assembler = Assembler(self.reader, self.problems, self.cwd, self.remote)
        chosen = self._name(name, paths, local, interpolate)
        self.environment["COMPOSE_PROJECT_NAME"] = chosen
        values = Variables(self.environment, self.missing, self.unsure)
        home = self.environment.get("HOME", "")
        model = assembler.model(paths, folder, values if interpolate else None, home)
        if not model:
            self.problems.check()
            raise InvalidInput(
                "empty compose file",
                ", ".join(paths),
                "At least it says: services: {web: {image: nginx}}",
            )
        profiles = self._profiles(profiles)
        try:
            project = self._project(
                model, chosen, folder, paths, assembler, profiles, consistency, resolve_env
            )
        except (LookupError, TypeError, ValueError, AttributeError):
            # these checks are of models that are right so far; what is known is told
            if not len(self.problems):
                raise
            raise self._wrong(assembler, None) from None
        loaded = Loaded(project, self._told(assembler), assembler.origins)
        if len(self.problems):
            raise self._wrong(assembler, loaded)
        return loaded

    def _wrong(self, assembler: Assembler, partial: Loaded | None) -> WrongFiles:
        error = self.problems.error()
        error.partial = partial
        error.warnings = self._told(assembler)
        return error

    def _told(self, assembler: Assembler) -> tuple[str, ...]:
        unset = [
            f'The "{name}" variable is not set. Defaulting to a blank string.'
            for name in self.missing
        ]
        return tuple(dict.fromkeys([*unset, *self.warnings, *assembler.warnings]))

    def _dotenv(self, env_files: Sequence[str], folder: str) -> None:
        """Variables of the env files, below those of the process."""
        paths = [os.path.normpath(os.path.join(self.cwd, f)) for f in env_files]
        off = self.environment.get("COMPOSE_DISABLE_ENV_FILE", "").lower() in ("1", "t", "true")
        default = os.path.join(folder, ".env")
        if not paths and not off and self.reader.is_file(default):
            paths = [default]
        told = len(self.problems)
        named = {path: shown(path, self.cwd) for path in paths}
        read = dotenv.read_all(named, self.environment, self.reader, self.problems, self.missing)
        self.unsure = self.unsure or len(self.problems) > told
        for key, value in read.items():
            self.environment.setdefault(key, value)

    def _folder(self, paths: list[str], project_dir: str) -> str:
        if project_dir:
            return os.path.normpath(os.path.join(self.cwd, project_dir))
        first = next((p for p in paths if p != "-"), "")
        return os.path.dirname(first) if first else self.cwd

    def _profiles(self, profiles: Sequence[str]) -> tuple[str, ...]:
        given = list(profiles) or self.environment.get("COMPOSE_PROFILES", "").split(",")
        return tuple(p.strip() for p in given if p.strip())

    def _name(self, given: str, paths: list[str], folder: str, interpolate: bool) -> str:
        """The project's name: -p, COMPOSE_PROJECT_NAME, ``name:`` of a file, the folder's."""
        given = given or self.environment.get("COMPOSE_PROJECT_NAME", "")
        if given:
            if project_name(given) != given:
                raise InvalidInput(
                    f'invalid project name "{given}": must consist only of lowercase alphanumeric'
                    " characters, hyphens, and underscores as well as start with a letter"
                    " or number",
                    "",
                    f'"{project_name(given)}" would do' if project_name(given) else "",
                )
            return given
        name = project_name(self._named(paths, interpolate) or "")
        name = name or project_name(os.path.basename(folder))
        if not name:
            raise InvalidInput(
                "project name must not be empty",
                f"The folder {folder} has no letter or digit in its name",
                "Give a name with -p, or with name: in the file",
            )
        return name

    def _named(self, paths: list[str], interpolate: bool) -> str | None:
        found = None
        for path in paths:
            try:
                text = self.reader.read(path)
            except InvalidInput:
                continue  # told of when the file itself is read
            if "name:" not in text and '"name"' not in text:
                continue
            for document in yamlread.parse(text, path, path, Problems()):
                value = document.value.get("name") if isinstance(document.value, dict) else None
                found = value if isinstance(value, str) and value else found
        if found is not None and interpolate:
            try:
                return substitute(found, Variables(self.environment, {}, self.unsure))
            except BadTemplate:
                return None  # told of when the file itself is read
        return found

    def _project(
        self,
        model: Json,
        name: str,
        folder: str,
        paths: list[str],
        assembler: Assembler,
        profiles: tuple[str, ...],
        consistency: bool,
        resolve_env: bool,
    ) -> Project:
        origins, broken = assembler.origins, assembler.broken
        required(model, origins, self.problems, broken)
        normalize(model, name, self.environment)
        services: dict[str, Json] = dict(sorted(model["services"].items()))
        enabled = [n for n, s in services.items() if _enabled(s, profiles)]
        if consistency:
            Consistency(model, enabled, origins, self.problems, broken).check()
        for key in enabled:
            _agree_scale(services[key])
            if resolve_env:
                self._env_files(key, services[key], assembler)
                self._label_files(key, services[key], assembler)
        for key in services.keys() - set(enabled) if resolve_env else ():
            self._disabled_env_files(key, services[key], assembler)
        return Project(
            name=name,
            working_dir=folder,
            files=tuple(paths),
            environment=self.environment,
            services={n: Service(n, services[n]) for n in enabled},
            disabled={n: Service(n, s) for n, s in services.items() if n not in set(enabled)},
            networks=_sorted(model, "networks"),
            volumes=_sorted(model, "volumes"),
            configs=_sorted(model, "configs"),
            secrets=_sorted(model, "secrets"),
            models=_sorted(model, "models"),
            extensions={k: v for k, v in model.items() if k.startswith("x-")},
            profiles=profiles,
            marks=_marks(model, origins),
        )

    def _disabled_env_files(self, name: str, service: Json, assembler: Assembler) -> None:
        """Those of a service that may be enabled by name later; problems are told only then."""
        mine, missing, kept = self.problems, self.missing, service.get("env_file")
        self.problems, self.missing = Problems(), {}
        try:
            self._env_files(name, service, assembler)
            self._label_files(name, service, assembler)
            if len(self.problems) and kept:
                service["env_file"] = kept
        finally:
            self.problems, self.missing = mine, missing

    def _env_files(self, name: str, service: Json, assembler: Assembler) -> None:
        """env_file below environment, as Compose does; the entries are then used up."""
        own: dict[str, str | None] = service.get("environment") or {}
        read: dict[str, str | None] = {}
        for index, entry in enumerate(service.pop("env_file", None) or ()):
            path = entry["path"]
            at = assembler.origins.place(("services", name, "env_file", index))
            if not self.reader.is_file(path):
                if entry.get("required", True):
                    words = f"env file {assembler.shown(path)} not found"
                    self.problems.add(at, f"{words} (one with required: false may be missing)")
                continue
            text = self.reader.read(path)
            kind = entry.get("format") or ""
            if kind == "raw":
                read.update(dotenv.parse_raw(text))
            elif kind:
                self.problems.add(at, f'unknown format "{kind}" of an env file; known is raw')
            else:
                set_ = {k: v for k, v in own.items() if v is not None}
                lookup = {**set_, **self.environment}
                shown = assembler.shown(path)
                read.update(dotenv.parse(text, shown, lookup, self.problems, self.missing))
        if read or own:
            service["environment"] = {**read, **own}

    def _label_files(self, name: str, service: Json, assembler: Assembler) -> None:
        read: dict[str, str] = {}
        for index, path in enumerate(service.get("label_file") or ()):
            if not self.reader.is_file(path):
                at = assembler.origins.place(("services", name, "label_file", index))
                self.problems.add(at, f"label file {assembler.shown(path)} not found")
                continue
            text = self.reader.read(path)
            read.update(dotenv.parse(text, assembler.shown(path), read, self.problems))
        if read:
            service["labels"] = {**read, **(service.get("labels") or {})}


def _enabled(service: Json, profiles: Sequence[str]) -> bool:
    own = service.get("profiles")
    return not own or "*" in profiles or any(p in profiles for p in own)


def _agree_scale(service: Json) -> None:
    scale, deploy = service.get("scale"), service.get("deploy")
    if scale is not None and deploy is not None:
        deploy["replicas"] = scale


def _sorted(model: Json, kind: str) -> dict[str, Json]:
    return dict(sorted((model.get(kind) or {}).items()))


def _marks(model: Json, origins: Origins) -> dict[str, str]:
    """Where providers and models stand, for errors that come up when programs are called."""
    services = model["services"].items()
    paths: list[Path] = [("services", n, "provider") for n, one in services if "provider" in one]
    paths += [("models", name) for name in model.get("models") or {}]
    found = {}
    for path in paths:
        file, line, column, _ = origins.place(path, key=True)
        found[f"{path[0]}.{path[1]}"] = f"{file}:{line}:{column}" if line else file
    return found
