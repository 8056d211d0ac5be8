"""Files become one canonical model: read, interpolate, check, include, extend, merge."""

from __future__ import annotations

import os.path
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gemel.compose import dotenv, paths, yamlread
from gemel.compose.canonical import canonical
from gemel.compose.files import Reader
from gemel.compose.interpolate import Tell, Variables, interpolate
from gemel.compose.merge import Mismatch, merge, reset, unique
from gemel.compose.problems import Path, Place, Problems, nearest
from gemel.compose.schema import NULL, SERVICE
from gemel.compose.tables import copied
from gemel.compose.validate import validate
from gemel.compose.yamlread import Document
from gemel.errors import GemelError

Json = dict[str, Any]
KINDS = ("services", "volumes", "networks", "secrets", "configs", "models")
DEEPEST_INCLUDE = 50


class Origins:
    """All documents that were read, to find where something stands."""

    def __init__(self) -> None:
        self.documents: list[Document] = []

    def item(self, path: Path, text: str) -> Place:
        """Where an entry of the list at ``path`` stands that says ``text``.

        Positions in a merged list are not those of the files, so it is looked for.
        """
        for document in reversed(self.documents):
            found = document.item(path, text)
            if found is not None:
                return found
        return self.place(path, key=True)

    def has(self, path: Path) -> bool:
        """Whether some file says something at ``path``."""
        return any(document.has(path) for document in self.documents)

    def place(self, path: Path, key: bool = False) -> Place:
        """Where ``path`` stands, or the nearest thing above it, the latest file first."""
        for length in range(len(path), 0, -1):
            for document in reversed(self.documents):
                if document.has(path[:length]):
                    return document.place(path[:length], key and length == len(path))
        return self.documents[0].place(()) if self.documents else Place("compose.yaml")


class _Context(NamedTuple):
    """Where relative names of files start, what variables there are, who includes us."""

    folder: str
    variables: Variables | None
    home: str
    including: tuple[str, ...] = ()


class Assembler:
    """Reads the files of a project. All that is wrong goes to ``problems``."""

    def __init__(self, reader: Reader, problems: Problems, shown_from: str) -> None:
        self.reader = reader
        self.problems = problems
        self.origins = Origins()
        self.warnings: dict[str, None] = {}
        self._shown_from = shown_from
        self._files: dict[str, list[Document]] = {}

    def model(
        self, files: Sequence[str], folder: str, variables: Variables | None, home: str
    ) -> Json:
        """The merged model of ``files`` with absolute paths. Raises InvalidInput."""
        return self._model(files, _Context(folder, variables, home))

    def _model(self, files: Sequence[str], context: _Context) -> Json:
        merged: Json = {}
        for file in files:
            for document in self._read(file):
                merged = self._layer(merged, document, context, (*context.including, file))
            self.problems.check()
        return self._finished(merged, context)

    def _finished(self, merged: Json, context: _Context) -> Json:
        """Fills in what is taken from the surroundings: paths and variables."""
        for service in (merged.get("services") or {}).values():
            if isinstance(service, dict) and isinstance(service.get("build"), dict):
                service["build"].setdefault("context", ".")
        paths.resolve(merged, context.folder, context.home)
        if context.variables is not None:
            _from_environment(merged, context.variables.values)
        return merged

    def shown(self, path: str) -> str:
        """A file's name in messages: short where that is clear."""
        if path == "-":
            return "(standard input)"
        near = os.path.relpath(path, self._shown_from)
        return near if not near.startswith("../..") else path

    def _read(self, path: str) -> list[Document]:
        """The documents of a file that hold anything. Raises InvalidInput, NotFound."""
        known = self._files.get(path)
        if known is not None:
            return known
        text = self.reader.read(path)
        found = yamlread.parse(text, self.shown(path), path, self.problems)
        if not found:
            self.problems.check()
        kept = [d for d in found if d.value is not None]
        for document in kept:
            if not isinstance(document.value, dict):
                self.problems.add(document.place(()), "a Compose file must be a mapping")
                self.problems.check()
        self.origins.documents += kept
        self._files[path] = kept
        return kept

    def _tell(self, document: Document, at: Path = ()) -> Tell:
        """A collector of problems whose paths begin below ``at``."""

        def tell(path: Path, words: str) -> None:
            self.problems.add(document.place((*at, *path)), words)

        return tell

    def _layer(
        self, base: Json, document: Document, context: _Context, including: tuple[str, ...]
    ) -> Json:
        """``base`` overridden by one document."""
        value = interpolate(document.value, context.variables, self._tell(document))
        validate(value, document, self.problems)
        self.problems.check()
        if value.pop("version", None) is not None:
            self.warnings.setdefault(
                f"{document.file}: the attribute `version` is obsolete, it will be ignored,"
                " please remove it to avoid potential confusion"
            )
        value = canonical(value, self._tell(document))
        self.problems.check()
        self._include(value, document, context._replace(including=including))
        reset(base, document.resets)
        self._extend(value, document, context)
        self.problems.check()
        try:
            return unique(merge(base, value))  # type: ignore[no-any-return]
        except Mismatch as error:
            self.problems.add(document.place(error.path), error.words)
            raise self.problems.error() from error

    # include

    def _include(self, value: Json, document: Document, context: _Context) -> None:
        for index, entry in enumerate(value.pop("include", None) or ()):
            files = _listed(entry.get("path"))
            if not files:
                self.problems.add(document.place(("include", index)), "include needs a path")
                continue
            if far := next((f for f in files if paths.is_remote(f)), ""):
                words = f"a file at an address is not included: {far} (fetch it first)"
                self.problems.add(document.place(("include", index)), words)
                continue
            files = [paths.absolute(f, context.folder, context.home) for f in files]
            if files[0] in context.including or len(context.including) > DEEPEST_INCLUDE:
                chain = " includes ".join(self.shown(f) for f in (*context.including, files[0]))
                self.problems.add(document.place(("include", index)), f"a cycle: {chain}")
                continue
            try:
                inner = self._inner(entry, files, context)
                imported = self._model(files, inner)
            except GemelError as error:
                if len(self.problems):
                    raise
                self.problems.add(document.place(("include", index)), error.brief)
                continue
            self._import(imported, value)

    def _inner(self, entry: Json, files: list[str], context: _Context) -> _Context:
        """The surroundings of an included project."""
        folder = entry.get("project_directory")
        if folder:
            folder = paths.absolute(folder, context.folder, context.home)
        else:
            folder = os.path.dirname(files[0])
        env_files = [f for f in _listed(entry.get("env_file")) if f != "/dev/null"]
        env_files = [paths.absolute(f, context.folder, context.home) for f in env_files]
        if "env_file" not in entry and self.reader.is_file(f"{folder}/.env"):
            env_files = [f"{folder}/.env"]
        variables = context.variables
        if variables is not None:
            more = dotenv.read_all(
                env_files, variables.values, self.reader, self.problems, variables.missing
            )
            self.problems.check()
            variables = variables.with_more(more)
        return _Context(folder, variables, context.home, context.including)

    def _import(self, imported: Json, value: Json) -> None:
        for kind in KINDS:
            mine: Json = value.get(kind) or {}
            for name, item in (imported.get(kind) or {}).items():
                if name in mine and item is not None:
                    mine[name] = merge(item, mine[name], (kind, name))
                else:
                    mine.setdefault(name, item)
            if mine:
                value[kind] = unique({kind: mine})[kind]

    # extends

    def _extend(self, value: Json, document: Document, context: _Context) -> None:
        services = value.get("services")
        if not services:
            return
        for name in list(services):
            if isinstance(services[name], dict) and "extends" in services[name]:
                services[name] = self._extended(name, services, document, context, ())

    def _extended(
        self,
        name: str,
        services: Json,
        document: Document,
        context: _Context,
        chain: tuple[tuple[str, str], ...],
    ) -> Any:
        """Service ``name`` of ``services`` with its base merged under it."""
        service = services[name]
        if not isinstance(service, dict) or "extends" not in service:
            return service
        at = document.place(("services", name, "extends"))
        if (document.path, name) in chain:
            told = [f"{s} in {self.shown(f)}" for f, s in (*chain, (document.path, name))]
            self.problems.add(at, "a cycle: " + " extends ".join(told))
            raise self.problems.error()
        extends = service["extends"]
        extends = {"service": extends} if isinstance(extends, str) else extends
        ref = extends.get("service")
        if not ref:
            self.problems.add(at, "extends needs the name of a service")
            raise self.problems.error()
        found, origin = services, document
        if extends.get("file"):
            found, origin = self._base_file(extends["file"], ref, at, context)
        if ref not in found:
            words = f'there is no service "{ref}" in {origin.file}{nearest(ref, found)}'
            self.problems.add(at, f"cannot extend: {words}")
            raise self.problems.error()
        base = self._extended(ref, found, origin, context, (*chain, (document.path, name)))
        if base is None:
            return service
        source = copied(base)
        reset({"services": {name: source}}, document.resets)
        own = {key: item for key, item in service.items() if key != "extends"}
        source.pop("extends", None)
        try:
            merged = unique({"services": {name: merge(source, own, ("services", name))}})
        except Mismatch as error:
            self.problems.add(document.place(error.path), error.words)
            raise self.problems.error() from error
        services[name] = merged["services"][name]
        return services[name]

    def _base_file(
        self, file: str, ref: str, at: Place, context: _Context
    ) -> tuple[Json, Document]:
        """The services of a file that is extended from, with absolute paths."""
        path = paths.absolute(file, context.folder, context.home)
        try:
            documents = self._read(path)
        except GemelError as error:
            if not len(self.problems):
                self.problems.add(at, f"cannot extend: {error.brief}")
            raise self.problems.error() from error
        merged: Json = {}
        holder = None
        for document in documents:
            raw = document.value.get("services")
            if not isinstance(raw, dict):
                continue
            if ref in raw:
                holder = document
            # only what is extended is checked: the rest of the file is not ours
            only = {"services": _chain(ref, raw)}
            value = interpolate(only, context.variables, self._tell(document))
            for name, service in value["services"].items():
                validate(service, document, self.problems, SERVICE | NULL, ("services", name))
            self.problems.check()
            value = canonical(value, self._tell(document))
            self.problems.check()
            merged = unique(merge(merged, value))
        if holder is None:
            known = {n: 1 for d in documents for n in (d.value.get("services") or {})}
            words = f'there is no service "{ref}" in {self.shown(path)}{nearest(ref, known)}'
            self.problems.add(at, f"cannot extend: {words}")
            raise self.problems.error()
        paths.resolve(merged, os.path.dirname(path), context.home)
        return merged["services"], holder


def _chain(ref: str, services: Mapping[str, Any]) -> Json:
    """``ref`` and the services of the same file that it extends in turn."""
    found: Json = {}
    while ref in services and ref not in found:
        found[ref] = services[ref]
        extends = services[ref].get("extends") if isinstance(services[ref], dict) else None
        if isinstance(extends, dict) and not extends.get("file"):
            extends = extends.get("service")
        if not isinstance(extends, str):
            break
        ref = extends
    return found


def _listed(value: Any) -> list[str]:
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)


def _from_environment(model: Json, environment: Mapping[str, str]) -> None:
    """Values that the file leaves to the environment."""
    for service in (model.get("services") or {}).values():
        values = (service.get("environment") if isinstance(service, dict) else None) or {}
        for key, value in values.items():
            if value is None and key in environment:
                values[key] = environment[key]
    for kind in ("secrets", "configs"):
        for resource in (model.get(kind) or {}).values():
            name = resource.get("environment") if isinstance(resource, dict) else None
            if name and name in environment:
                resource["content"] = environment[name]
