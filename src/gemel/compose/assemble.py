"""Files become one canonical model: read, interpolate, check, include, extend, merge."""

from __future__ import annotations

import os.path
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from gemel.compose import dotenv, paths, yamlread
from gemel.compose.broken import Broken, Scope, original
from gemel.compose.canonical import canonical
from gemel.compose.files import Fetching, NotText, Reader
from gemel.compose.interpolate import Variables, interpolate
from gemel.compose.merge import Mismatch, merge, reset, unique
from gemel.compose.problems import Path, Place, Problems, nearest
from gemel.compose.schema import BASE, COMPOSE, Rule
from gemel.compose.tables import copied
from gemel.compose.validate import validate
from gemel.compose.yamlread import Document
from gemel.errors import GemelError, InvalidInput, NotFound

Json = dict[str, Any]
KINDS = ("services", "volumes", "networks", "secrets", "configs", "models")
DEEPEST_INCLUDE = 50


class Origins:
    """All documents that were read, to find where something stands."""

    def __init__(self) -> None:
        self.documents: list[Document] = []
        self.bases: dict[str, tuple[Document, str]] = {}
        """What services extend, and where that is."""

    def _spots(self, path: Path) -> Iterator[tuple[Document, Path]]:
        """Where ``path`` may stand, the latest file first, then what a service extends."""
        for document in reversed(self.documents):
            yield document, original(path, document.removed)
        name = path[1] if len(path) > 1 and path[0] == "services" else ""
        for _ in self.documents:  # no chain is longer, or it is a cycle
            base = self.bases.get(str(name))
            if base is None:
                return
            document, name = base
            yield document, original(("services", name, *path[2:]), document.removed)

    def item(self, path: Path, text: str) -> Place:
        """Where an entry of the list at ``path`` stands that says ``text``.

        Positions in a merged list are not those of the files, so it is looked for.
        """
        for document, there in self._spots(path):
            found = document.item(there, text)
            if found is not None:
                return found
        return self.place(path, key=True)

    def has(self, path: Path) -> bool:
        """Whether some file says something at ``path``."""
        return any(document.has(there) for document, there in self._spots(path))

    def written(self, path: Path) -> Path:
        """``path`` with the positions that entries of lists have in their file."""
        spots = [there for document, there in self._spots(path) if document.has(there)]
        return (*path[:2], *spots[0][2:]) if spots else path

    def place(self, path: Path, key: bool = False) -> Place:
        """Where ``path`` stands, or the nearest thing above it, the latest file first."""
        for length in range(len(path), 0, -1):
            for document, there in self._spots(path[:length]):
                if document.has(there):
                    return document.place(there, key and length == len(path))
        return self.documents[0].place(()) if self.documents else Place("compose.yaml")


class _Context(NamedTuple):
    """Where relative names of files start, what variables there are, who includes us."""

    folder: str
    variables: Variables | None
    home: str
    including: tuple[str, ...] = ()


class _Unextended(Exception):
    """A service cannot be completed by what it extends; why was told."""


class Assembler:
    """Reads the files of a project. All that is wrong goes to ``problems``.

    broken: what of the model was told of, and is not in it therefore.
    """

    def __init__(
        self, reader: Reader, problems: Problems, shown_from: str, remote: Fetching
    ) -> None:
        self.reader = reader
        self.remote = remote
        self.problems = problems
        self.broken = Broken()
        self.origins = Origins()
        self.warnings: dict[str, None] = {}
        self._shown_from = shown_from
        self._files: dict[str, list[Document]] = {}
        self._unextended: set[tuple[str, str]] = set()

    def model(
        self, files: Sequence[str], folder: str, variables: Variables | None, home: str
    ) -> Json:
        """The merged model of ``files`` with absolute paths. Raises NotFound for a file."""
        return self._model(files, _Context(folder, variables, home))

    def _model(self, files: Sequence[str], context: _Context) -> Json:
        merged: Json = {}
        for file in files:
            for document in self._read(file):
                merged = self._layer(merged, document, context, (*context.including, file))
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
        return self.remote.shown(path) or paths.shown(path, self._shown_from)

    def _read(self, path: str) -> list[Document]:
        """The documents of a file that hold anything. Raises NotFound.

        Of a file that cannot be read none: then what is absent may be in it.
        """
        known = self._files.get(path)
        if known is not None:
            return known
        shown = self.shown(path)
        self.problems.reading(shown)
        unread: list[str] = []
        kept: list[Document] = []
        self._files[path] = kept
        for document in self._parsed(path, shown, unread):
            if isinstance(document.value, dict):
                kept.append(document)
            elif document.value is not None:
                self.problems.add(document.place(()), "a Compose file must be a mapping")
                unread.append(shown)
        self.broken.incomplete |= bool(unread)
        self.origins.documents += kept
        return kept

    def _parsed(self, path: str, shown: str, unread: list[str]) -> list[Document]:
        try:
            text = self.reader.read(path)
        except InvalidInput as error:
            place = error.place if isinstance(error, NotText) else Place(shown)
            self.problems.add(place._replace(file=shown), error.brief)
            unread.append(shown)
            return []
        return yamlread.parse(text, shown, path, self.problems, unread)

    def _layer(
        self, base: Json, document: Document, context: _Context, including: tuple[str, ...]
    ) -> Json:
        """``base`` overridden by one document."""
        scope = Scope(document, self.problems, self.broken)
        value = self._understood(document.value, scope, context)
        if value.pop("version", None) is not None:
            self.warnings.setdefault(
                f"{document.file}: the attribute `version` is obsolete, it will be ignored,"
                " please remove it to avoid potential confusion"
            )
        self._include(value, scope, context._replace(including=including))
        reset(base, document.resets)
        self._extend(value, document, context)
        return unique(self._merged(base, value, (), scope))  # type: ignore[no-any-return]

    def _understood(
        self, written: Any, scope: Scope, context: _Context, rule: Rule = COMPOSE
    ) -> Any:
        """What a document says, in canonical form, without what is wrong."""
        value = interpolate(written, context.variables, scope.tell)
        validate(value, scope, rule)
        scope.sweep(value)
        value = canonical(value, scope)
        scope.sweep(value)
        return value

    def _merged(self, base: Any, over: Any, at: Path, scope: Scope) -> Any:
        """``base`` overridden by ``over``, which is of the document of ``scope``."""
        try:
            return merge(base, over, at)
        except Mismatch as error:
            for path, words in error.found:
                scope.tell_gone(path, words)
            return error.merged

    # include

    def _include(self, value: Json, scope: Scope, context: _Context) -> None:
        for index, entry in enumerate(value.pop("include", None) or ()):
            files, words = self._included(entry, context)
            if not words:
                try:
                    at = scope.document.place(("include", index))
                    imported = self._model(files, self._inner(entry, files, context, at))
                    self._import(imported, value, scope)
                except NotFound:
                    missing = next((f for f in files if not self.reader.is_file(f)), files[0])
                    words = f"{self.shown(missing)} does not exist"
                except GemelError as error:
                    words = error.brief
            if words:
                scope.tell_gone(("include", index), words)
                self.broken.incomplete = True

    def _included(self, entry: Json, context: _Context) -> tuple[list[str], str]:
        """The files of an entry of ``include``, or what is wrong with it."""
        files = _listed(entry.get("path"))
        if not files or not all(files):
            return [], "include needs a path"
        files, words = self._fetched(files, context)
        if words:
            return [], words
        if files[0] in context.including or len(context.including) > DEEPEST_INCLUDE:
            chain = " includes ".join(self.shown(f) for f in (*context.including, files[0]))
            return [], f"a cycle: {chain}"
        return files, ""

    def _fetched(self, files: list[str], context: _Context) -> tuple[list[str], str]:
        """Absolute paths of files that are included, fetched ones too; or what is wrong."""
        found = []
        for file in files:
            if paths.is_artifact(file):
                try:
                    found.append(self.remote(file))
                except GemelError as error:
                    parts = (error.brief, error.details, error.resolution)
                    return [], "; ".join(filter(None, parts))
            elif paths.is_remote(file):
                return [], f"a file at an address is not included: {file} (fetch it first)"
            else:
                found.append(paths.absolute(file, context.folder, context.home))
        return found, ""

    def _inner(self, entry: Json, files: list[str], context: _Context, at: Place) -> _Context:
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
            told = len(self.problems)
            for path in [f for f in env_files if not self.reader.is_file(f)]:
                self.problems.add(at, f"env file {self.shown(path)} not found")
                env_files.remove(path)
            named = {path: self.shown(path) for path in env_files}
            more = dotenv.read_all(
                named, variables.values, self.reader, self.problems, variables.missing
            )
            variables = variables.with_more(more, unsure=len(self.problems) > told)
        return _Context(folder, variables, context.home, context.including)

    def _import(self, imported: Json, value: Json, scope: Scope) -> None:
        for kind in KINDS:
            mine: Json = value.get(kind) or {}
            for name, item in (imported.get(kind) or {}).items():
                if name in mine and item is not None:
                    mine[name] = self._merged(item, mine[name], (kind, name), scope)
                else:
                    mine.setdefault(name, item)
            if mine:
                value[kind] = unique({kind: mine})[kind]

    # extends

    def _extend(self, value: Json, document: Document, context: _Context) -> None:
        services = value.get("services") or {}
        for name in list(services):
            if not isinstance(services[name], dict) or "extends" not in services[name]:
                continue
            taint = Broken()
            try:
                services[name] = self._extended(name, services, document, context, (), taint)
            except _Unextended:
                services[name] = {k: v for k, v in services[name].items() if k != "extends"}
                taint.mark(())
            if taint:
                self.broken.mark(("services", name))

    def _extended(
        self,
        name: str,
        services: Json,
        document: Document,
        context: _Context,
        chain: tuple[tuple[str, str], ...],
        taint: Broken,
    ) -> Any:
        """Service ``name`` of ``services`` with its base merged under it.

        taint: is marked if something of the base is wrong. Raises _Unextended.
        """
        service = services[name]
        if (document.path, name) in self._unextended:
            raise _Unextended
        if not isinstance(service, dict) or "extends" not in service:
            return service
        at = document.place(("services", name, "extends"))
        chain = (*chain, (document.path, name))
        if chain[-1] in chain[:-1]:
            told = [f"{s} in {self.shown(f)}" for f, s in chain]
            raise self._unextendable(chain, at, "a cycle: " + " extends ".join(told))
        extends = service["extends"]
        extends = {"service": extends} if isinstance(extends, str) else extends
        ref = extends.get("service")
        if not ref:
            raise self._unextendable(chain, at, "extends needs the name of a service")
        found, origin = services, document
        if extends.get("file"):
            found, origin = self._base_file(extends["file"], ref, at, context, chain, taint)
        elif self.broken.touches(("services", ref)):
            taint.mark(())
        if ref not in found:
            words = f'there is no service "{ref}" in {origin.file}{nearest(ref, found)}'
            told_of = origin is document and self.broken.touches(("services", ref))
            raise self._unextendable(chain, at, "" if told_of else f"cannot extend: {words}")
        if document.path == chain[0][0]:
            self.origins.bases.setdefault(name, (origin, ref))
        base = self._extended(ref, found, origin, context, chain, taint)
        if base is None:
            return service
        source = copied(base)
        reset({"services": {name: source}}, document.resets)
        own = {key: item for key, item in service.items() if key != "extends"}
        source.pop("extends", None)
        scope = Scope(document, self.problems, taint)
        merged = unique({"services": {name: self._merged(source, own, ("services", name), scope)}})
        services[name] = merged["services"][name]
        return services[name]

    def _unextendable(
        self, chain: tuple[tuple[str, str], ...], at: Place, words: str
    ) -> _Unextended:
        """Tells, once for all services of a chain, why they cannot be completed."""
        if words:
            self.problems.add(at, words)
        self._unextended.update(chain)
        return _Unextended()

    def _base_file(
        self,
        file: str,
        ref: str,
        at: Place,
        context: _Context,
        chain: tuple[tuple[str, str], ...],
        taint: Broken,
    ) -> tuple[Json, Document]:
        """The services of a file that is extended from, with absolute paths."""
        path = "" if paths.is_artifact(file) else paths.absolute(file, context.folder, context.home)
        try:
            documents = self._read(path := path or self.remote(file))
        except GemelError as error:
            missing = path and isinstance(error, NotFound)
            words = f"{self.shown(path)} does not exist" if missing else error.brief
            raise self._unextendable(chain, at, f"cannot extend: {words}") from error
        merged: Json = {}
        holder = None
        for document in documents:
            raw = document.value.get("services")
            if not isinstance(raw, dict):
                continue
            if ref in raw:
                holder = document
            # only what is extended is checked: the rest of the file is not ours
            scope = Scope(document, self.problems, taint)
            value = self._understood({"services": _chain(ref, raw)}, scope, context, BASE)
            merged = unique(self._merged(merged, value, (), scope))
        if holder is None:
            raws = [d.value.get("services") for d in documents]
            known = [name for raw in raws if isinstance(raw, dict) for name in raw]
            words = f'there is no service "{ref}" in {self.shown(path)}{nearest(ref, known)}'
            raise self._unextendable(chain, at, f"cannot extend: {words}" if documents else "")
        paths.resolve(merged, os.path.dirname(path), context.home)
        return merged.get("services") or {}, holder


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
