"""What every command shares: the global options, the engine, the project."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import click

from gemel.client.engine import Client, Place
from gemel.errors import InvalidInput

if TYPE_CHECKING:
    from gemel.client.project.artifacts import Artifacts
    from gemel.client.project.providers import Providers
    from gemel.client.project.source import Loaded, Project
    from gemel.compose.assemble import Origins
    from gemel.compose.lint import Finding

#: Names of a Compose file, in the order in which they are looked for.
FILE_NAMES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")


class App:
    """The global options of one call. Nothing is looked up before it is needed."""

    def __init__(
        self,
        *,
        files: tuple[str, ...] = (),
        project_name: str = "",
        profiles: tuple[str, ...] = (),
        env_files: tuple[str, ...] = (),
        project_directory: str = "",
        host: str = "",
        root: str = "",
        run_dir: str = "",
        progress: str = "auto",
        parallel: int = 0,
        all_resources: bool = False,
    ) -> None:
        self.files = files or _files_from_environment()
        self.name_option = project_name
        self.profiles = profiles or tuple(
            filter(None, os.environ.get("COMPOSE_PROFILES", "").split(","))
        )
        self.env_files = env_files
        self.project_directory = project_directory
        self.place = Place(host, root, run_dir)
        self.progress = progress
        self.all_resources = all_resources
        self.parallel = parallel if parallel > 0 else 16
        self._client: Client | None = None
        self._loaded: Loaded | None = None
        self._artifacts: Artifacts | None = None

    @property
    def client(self) -> Client:
        """The engine; it is started when it does not run."""
        if self._client is None:
            self._client = Client(self.place)
        return self._client

    @property
    def artifacts(self) -> Artifacts:
        """Compose files from registries; nothing is fetched before one is named."""
        if self._artifacts is None:
            from gemel.client.project.artifacts import Artifacts

            self._artifacts = Artifacts(lambda: self.client)
        return self._artifacts

    def compose_files(self) -> list[str]:
        """Paths of the Compose files: those of -f, else the first found upwards; maybe none."""
        if self.files:
            return list(self.files)
        folder = os.path.abspath(self.project_directory or os.getcwd())
        while True:
            for name in FILE_NAMES:
                if os.path.isfile(path := os.path.join(folder, name)):
                    stem, _, end = path.rpartition(".")
                    extra = [f"{stem}.override.{e}" for e in (end, "yml", "yaml")]
                    return [path, *[e for e in extra if os.path.isfile(e)][:1]]
            parent = os.path.dirname(folder)
            if parent == folder or self.project_directory:
                return []
            folder = parent

    def has_project(self) -> bool:
        """Whether a project is meant: -p or -f given, or a Compose file found."""
        return bool(
            self.name_option
            or os.environ.get("COMPOSE_PROJECT_NAME")
            or self.files
            or self.compose_files()
        )

    def name(self) -> str:
        """The project's name, without reading the whole file where that can be avoided."""
        given = self.name_option or os.environ.get("COMPOSE_PROJECT_NAME", "")
        if given:
            return given
        files = self.compose_files()
        if not files:
            raise no_file()
        quick = quick_name(files, self.project_directory)
        return quick or self.project().name

    def project(self) -> Project:
        """The project of the Compose file, read once. Raises InvalidInput with file and line."""
        return self._load().project

    def startable(self) -> Project:
        """The same, to start some of it: of a wrong file what would be refused is told, too."""
        try:
            return self.project()
        except InvalidInput as error:
            from gemel.compose import lint
            from gemel.compose.problems import WrongFiles

            if not isinstance(error, WrongFiles):
                raise
            raise lint.complete(error) from None

    def _load(self) -> Loaded:
        if self._loaded is None:
            from gemel.client.project.source import load_all

            self._loaded = load_all(self)
        return self._loaded

    def providers(self) -> Providers | None:
        """The programs that run services of the project, if the Compose file has such services.

        Also of services that no profile enables now, if they have been brought up. The file is
        read as a whole only if it might have providers.
        """
        if not any(_may_have_providers(path) for path in self.compose_files()):
            return None
        from gemel.client.project import remembered
        from gemel.client.project.providers import Providers

        project = self.project()
        known = remembered.read(self.place, project.name).providers
        project = project.enabling([name for name in known if name in project.disabled])
        return Providers(project) if any(service.provider for service in project) else None

    def lint(self, project: Project, services: Collection[str], part: str = "") -> None:
        """Tells what of these services is not carried out, before anything is started.

        part: only what is below that key of a service. Raises InvalidInput, with every
        place, if something is refused.
        """
        from gemel.cli import output
        from gemel.client.project.choosing import resolved
        from gemel.compose import lint

        project = resolved(self.client, project, services)
        origins = self._load().origins
        findings = lint.lint(project, origins, list(services))
        findings += outside_findings(project, origins, services)
        if part:
            above = tuple(f"services.{name}.{part}." for name in services)
            findings = [f for f in findings if f.attribute.startswith(above)]
        lint.refuse(findings)
        for finding in findings:
            output.warn(finding.render())


def _may_have_providers(path: str) -> bool:
    """Whether the text of a file names providers, or other files."""
    if path == "-" or path.startswith("oci://"):
        return True
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError):
        return False  # told of when the file itself is read
    return any(word in text for word in ("provider", "include", "extends"))


def outside_findings(
    project: Project, origins: Origins | None, services: Collection[str]
) -> list[Finding]:
    """Programs that these services need outside of the project and that are not there."""
    chosen = [project.service(name) for name in services]
    if not any(one.provider is not None or one.config.get("models") for one in chosen):
        return []
    from gemel.client.project.outside import findings

    return findings(project, origins, list(services))


def no_file() -> InvalidInput:
    """No Compose file here or above."""
    return InvalidInput(
        "no Compose file found here or in a folder above",
        details="looked for " + ", ".join(FILE_NAMES),
        resolution="name one with -f FILE, or a running project with -p NAME",
    )


def _files_from_environment() -> tuple[str, ...]:
    text = os.environ.get("COMPOSE_FILE", "")
    separator = os.environ.get("COMPOSE_PATH_SEPARATOR", ":")
    return tuple(filter(None, text.split(separator)))


def quick_name(files: list[str], directory: str = "") -> str:
    """The project's name by a look at the lines that begin with ``name:``; "" if that is not sure.

    A name with a variable, or in a file that includes others, needs the whole loader; so does
    an environment file that may set COMPOSE_PROJECT_NAME.
    """
    base = os.path.abspath(directory or os.path.dirname(os.path.abspath(files[0])))
    if files[0] == "-" or os.path.exists(os.path.join(base, ".env")):
        return ""
    found = ""
    for path in files:
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read()
        except (OSError, UnicodeDecodeError):
            return ""
        for value in re.findall(r"^[\"']?name[\"']?\s*:[ \t]*(.*)$", text, re.MULTILINE):
            match = re.fullmatch(r"(['\"]?)([a-z0-9][a-z0-9_-]*)\1\s*(#.*)?", value)
            if not match:
                return ""
            found = match[2]
        if re.search(r"^(include|[\"'{?&!<])", text, re.MULTILINE):
            return ""
    return found or normalise(os.path.basename(base))


def normalise(name: str) -> str:
    """A folder's name as a project's: lower case, digits, ``-`` and ``_``."""
    return re.sub(r"[^-_a-z0-9]", "", name.lower()).lstrip("_-")


pass_app: Callable[[Callable[..., Any]], Any] = click.make_pass_decorator(App)


class Lazy(click.Group):
    """The top group: names come from the registry, modules are imported when called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        from gemel.cli.registry import ALL

        return list(ALL)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        from gemel.cli.registry import ALIASES, ALL

        entry = ALL.get(ALIASES.get(cmd_name, cmd_name))
        if entry is None:
            return None
        from importlib import import_module

        module = import_module(f"gemel.cli.commands.{entry.module}")
        command: click.Command = getattr(module, entry.attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from gemel.cli.registry import ALIASES, ALL

        if args[:1] == ["help"]:  # as docker has it: help, help COMMAND
            args = [*args[1:], "--help"]
            if len(args) == 1:
                click.echo(ctx.get_help())
                ctx.exit()
        if args and args[0] not in {*ALL, *ALIASES} and not args[0].startswith("-"):
            raise unknown(args[0], list(ALL), ctx)
        name, found, rest = super().resolve_command(ctx, args)
        if ctx.params.get("dry_run") and found is not None:
            if not any(param.name == "dry_run" for param in found.params):
                raise click.UsageError(f"{name} has no --dry-run", ctx)
            rest = ["--dry-run", *rest]
        return name, found, rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from gemel.cli.registry import EXAMPLES, GROUPS

        for title, table in GROUPS:
            with formatter.section(title):
                formatter.write_dl([(name, entry.help) for name, entry in table.items()])
        with formatter.section("Examples"):
            formatter.write(EXAMPLES + "\n")


def unknown(name: str, known: list[str], ctx: click.Context) -> click.UsageError:
    """The error for a command that does not exist, with the nearest that does."""
    import difflib

    near = difflib.get_close_matches(name, known, 1)
    hint = f" Did you mean `{near[0]}`?" if near else ""
    return click.UsageError(f"no such command: {name}.{hint}", ctx)


_Wrap = Callable[[Callable[..., Any]], click.Command]


def command(name: str | None = None, **settings: Any) -> _Wrap:
    """click.command with wide help; settings: of click's context."""
    context = {"help_option_names": ["--help"], "max_content_width": 100, **settings}
    return click.command(name, context_settings=context)
