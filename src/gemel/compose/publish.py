"""What ``publish`` puts into an artifact, and what it asks about first. Pure but for reading."""

from __future__ import annotations

import hashlib
import os.path
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from yaml.nodes import ScalarNode

from gemel.compose import paths, render, yamlread
from gemel.compose.artifact import ENV_FILE, FILE, SCHEME, Layer
from gemel.compose.files import Reader
from gemel.compose.interpolate import BadTemplate, Variables, substitute
from gemel.compose.problems import Path, Problems
from gemel.compose.project import Project
from gemel.compose.yamlread import Document
from gemel.errors import InvalidInput, NotFound, Unsupported

_PROPERTIES = re.compile(r"(?:[&!]\S*\s+)*")
"""Anchor and tag before a value."""


class Contents(msgspec.Struct, frozen=True):
    """The files as they are published: paths in them are names in the artifact."""

    layers: tuple[Layer, ...]
    left_out: tuple[str, ...] = ()
    """Files that they speak of, and that are not part of it."""


def documents(reader: Reader, path: str) -> list[Document]:
    """The documents of a file. Raises InvalidInput, NotFound."""
    problems = Problems()
    found = yamlread.parse(reader.read(path), path, path, problems)
    problems.check()
    return [d for d in found if isinstance(d.value, dict)]


def refuse(project: Project, reader: Reader) -> None:
    """Raises InvalidInput for what cannot be published: local includes, services to build only."""
    for path in project.files:
        for document in documents(reader, path):
            for entry in _listed(document.value.get("include")):
                named = _listed(entry.get("path") if isinstance(entry, dict) else entry)
                if not all(str(name).startswith(SCHEME) for name in named):
                    raise InvalidInput(
                        "cannot publish compose file with local includes",
                        details=f"{path} includes {', '.join(map(str, named))}",
                        resolution="publish what it includes by itself and include it as "
                        "oci://…, or publish what `gemel config` writes",
                    )
    built = [n for n, one in _everyone(project) if one.get("build") and not one.get("image")]
    if built:
        raise InvalidInput(
            "your Compose stack cannot be published as it only contains a build section for "
            f"service(s): {', '.join(map(repr, built))}",
            resolution="give each an image: with the name that its image has in a registry",
        )


def bind_mounts(project: Project) -> list[str]:
    """``service: source:target`` for each folder or file of this machine that is mounted."""
    found = []
    for name, service in _everyone(project):
        for volume in service.get("volumes") or ():
            if isinstance(volume, dict) and volume.get("type") == "bind":
                found.append(f"{name}: {volume.get('source')}:{volume.get('target')}")
    return found


def environment(project: Project) -> dict[str, dict[str, str]]:
    """By service, the variables that it is given; configs that are one are among them."""
    found = {}
    for name, service in _everyone(project):
        values = service.get("environment") or {}
        if values:
            found[name] = {k: "" if v is None else str(v) for k, v in values.items()}
    for name, config in project.configs.items():
        if config.get("environment"):
            found[name] = {name: str(config["environment"])}
    return found


def with_env_files(project: Project, reader: Reader) -> list[str]:
    """Services that have an env_file, as their own file or one they extend from says."""
    found = [pair for _, document in _all(project, reader) for pair in _services(document)]
    return sorted({name for name, service in found if service.get("env_file")})


def _everyone(project: Project) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """All services, those of profiles that are off too."""
    for name, service in sorted({**project.services, **project.disabled}.items()):
        yield name, service.config


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]


def _services(document: Document) -> Iterator[tuple[str, Mapping[str, Any]]]:
    services = document.value.get("services")
    for name, service in services.items() if isinstance(services, dict) else ():
        if isinstance(service, dict):
            yield name, service


def _all(project: Project, reader: Reader) -> Iterator[tuple[str, Document]]:
    """Every document that is published, with its file: the project's, those extended from."""
    variables, seen, queue = Variables(project.environment, {}), set(), list(project.files)
    while queue:
        path = queue.pop(0)
        if path in seen:
            continue
        seen.add(path)
        folder = project.working_dir if path in project.files else os.path.dirname(path)
        for document in documents(reader, path):
            yield path, document
            queue += [file for _, file in _extended(document, folder, variables, reader)]


def sources(project: Project, reader: Reader) -> list[str]:
    """Paths of all Compose files that are published."""
    return list(dict.fromkeys(path for path, _ in _all(project, reader)))


def _extended(
    document: Document, folder: str, variables: Variables, reader: Reader
) -> Iterator[tuple[Path, str]]:
    """Where a local file is extended from, and that file."""
    for name, service in _services(document):
        extends = service.get("extends")
        if isinstance(extends, dict) and isinstance(extends.get("file"), str):
            file = extends["file"]
            path = _path(file, folder, variables)
            if not file.startswith(SCHEME) and reader.is_file(path):
                yield ("services", name, "extends", "file"), path


def _env_files(document: Document, folder: str, variables: Variables) -> Iterator[tuple[Path, str]]:
    for name, service in _services(document):
        given = service.get("env_file")
        at: Path = ("services", name, "env_file")
        if isinstance(given, str):
            yield at, _path(given, folder, variables)
        for index, entry in enumerate(given if isinstance(given, list) else ()):
            if isinstance(entry, str):
                yield (*at, index), _path(entry, folder, variables)
            elif isinstance(entry, dict) and isinstance(entry.get("path"), str):
                yield (*at, index, "path"), _path(entry["path"], folder, variables)


def _path(text: str, folder: str, variables: Variables) -> str:
    try:
        text = substitute(text, variables)
    except BadTemplate:
        pass  # told of when the file was loaded
    return paths.absolute(text, folder, variables.values.get("HOME", ""))


class _Collector:
    """Goes through the files, and through those that they name."""

    def __init__(self, project: Project, reader: Reader) -> None:
        self.project = project
        self.reader = reader
        self.variables = Variables(project.environment, {})
        self.extended: dict[str, str] = {}
        self.env_files: dict[str, str] = {}

    def name(self, path: str, suffix: str) -> str:
        """A file's name in the artifact: the same on every machine, and says nothing of it."""
        near = os.path.relpath(path, self.project.working_dir)
        return hashlib.sha256(near.encode("utf-8", "surrogateescape")).hexdigest() + suffix

    def text(self, path: str, folder: str) -> bytes:
        """The file with the names of others as they are in the artifact."""
        text = self.reader.read(path)
        changes: dict[tuple[int, int], str] = {}
        for document in documents(self.reader, path):
            for at, file in _env_files(document, folder, self.variables):
                name = self.env_files.setdefault(file, self.name(file, ".env"))
                changes |= _change(document, at, name)
            for at, file in _extended(document, folder, self.variables, self.reader):
                name = self.extended.setdefault(file, self.name(file, ".yaml"))
                changes |= _change(document, at, name)
        for (start, end), name in sorted(changes.items(), reverse=True):
            text = text[:start] + name + text[end:]
        return text.encode()


def _change(document: Document, at: Path, name: str) -> dict[tuple[int, int], str]:
    """Where in the text of its file a value stands that is to be another."""
    node = document.find(at)
    if not isinstance(node, ScalarNode) or node.end_mark is None or node.start_mark is None:
        raise Unsupported(
            f"{document.file}: an anchor is defined twice, which publishing does not follow",
            resolution="give each anchor a name of its own",
        )
    start, end = node.start_mark.index, node.end_mark.index
    found = _PROPERTIES.match(document.text, start, end)
    return {(found.end() if found else start, end): name}


def collect(project: Project, reader: Reader, *, with_env: bool, digests: str = "") -> Contents:
    """The files of a project as layers, in the order in which they are merged.

    with_env: env files too. digests: a further file that pins images, "" for none.
    Raises InvalidInput, NotFound, Unsupported.
    """
    work = _Collector(project, reader)
    layers = [
        Layer(FILE, os.path.basename(path), work.text(path, project.working_dir))
        for path in project.files
    ]
    done: set[str] = set()
    while queue := [path for path in work.extended if path not in done]:
        for path in queue:
            done.add(path)
            text = work.text(path, os.path.dirname(path))
            layers.append(Layer(FILE, work.extended[path], text, extends=True))
    left_out = [] if with_env else [p for p in work.env_files if reader.is_file(p)]
    for path, name in work.env_files.items() if with_env else ():
        try:
            layers.append(Layer(ENV_FILE, name, reader.read(path).encode()))
        except NotFound:
            continue  # one that is not required
    if digests:
        layers.append(Layer(FILE, "image-digests.yaml", digests.encode()))
    return Contents(tuple(layers), tuple(dict.fromkeys([*left_out, *_beside(project)])))


def _beside(project: Project) -> Iterable[str]:
    """Files that an application needs beside its Compose files."""
    for kind in (project.configs, project.secrets):
        yield from (str(one["file"]) for one in kind.values() if one.get("file"))
    for _, service in _everyone(project):
        yield from map(str, service.get("label_file") or ())


def pinned(images: Mapping[str, str]) -> str:
    """A Compose file that gives services these images, by service."""
    return render.to_yaml({"services": {n: {"image": i} for n, i in sorted(images.items())}})


def scanned(project: Project, reader: Reader) -> Sequence[tuple[str, str]]:
    """Name and text of every file that is looked through for what is secret."""
    wanted = dict.fromkeys(sources(project, reader))
    work = _Collector(project, reader)
    for path in list(wanted):
        folder = project.working_dir if path in project.files else os.path.dirname(path)
        for document in documents(reader, path):
            wanted |= dict.fromkeys(f for _, f in _env_files(document, folder, work.variables))
    for kind in (project.configs, project.secrets):
        wanted |= dict.fromkeys(str(one["file"]) for one in kind.values() if one.get("file"))
    found = []
    for path in wanted:
        try:
            found.append((path, reader.read(path)))
        except (NotFound, InvalidInput):
            continue  # not there, or no text
    return found
