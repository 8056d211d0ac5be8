"""Questions that want a yes, asked as Docker Compose asks them."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from gemel.cli import output
from gemel.client import terminal
from gemel.errors import Failed, InvalidInput

if TYPE_CHECKING:
    from gemel.cli.app import App
    from gemel.client.project.source import Project

_YES = ("y", "yes", "t", "true", "1")


def answered(question: str, default: bool) -> bool | None:
    """The answer from standard input, a terminal or not; None if there is none."""
    sys.stderr.write(f"{question} [{'Y/n' if default else 'y/N'}]: ")
    sys.stderr.flush()
    line = sys.stdin.readline()
    if not line.endswith("\n"):
        sys.stderr.write("\n")
    text = line.strip().lower()
    if not line:
        return None
    return text in _YES if text else default


def agreed(question: str) -> bool:
    """Whether the person agrees; no, if in doubt. Raises InvalidInput if nobody answers."""
    answer = answered(question, default=False)
    if answer is None:
        raise InvalidInput(
            "nobody answered", resolution="-y (--yes) answers every question with yes"
        )
    return answer


def remote_project(app: App, project: Project, *, yes: bool, piped: bool = True) -> None:
    """Before a project from a registry is started: what it includes, and which variables it uses.

    As Docker Compose: only if the first file is such a one. piped: also a standard input that
    is no terminal is read for answers. Raises Failed if the person does not agree.
    """
    if not app.files or not app.files[0].startswith("oci://"):
        return
    output.note(f'Your compose stack "{app.files[0]}" is stored in "{project.working_dir}"')
    if yes:
        return
    ask = piped or terminal.is_terminal(0)
    included = [one for one in app.artifacts.references if one not in app.files]
    if included and not (ask and _trusts([*app.files, *included])):
        raise _not_agreed(ask, "remote includes")
    programs = sorted({str(one.provider.get("type")) for one in project if one.provider})
    if programs and not (ask and _lets_run(programs)):
        raise _not_agreed(ask, "the programs that it runs")
    if ask and not _variables(project):
        raise Failed("operation cancelled by user")


def _not_agreed(asked: bool, what: str) -> Failed:
    return Failed(
        "operation cancelled by user" if asked else f"nobody can be asked about {what}",
        resolution="-y (--yes) answers every question with yes",
    )


def _lets_run(programs: list[str]) -> bool:
    output.note("\nWarning: This Compose project has services that programs of this machine run:")
    for one in programs:
        output.note(f"  - {one}")
    return bool(answered("Do you want to run them?", default=False))


def _trusts(references: list[str]) -> bool:
    output.note("\nWarning: This Compose project includes files from remote sources:")
    for one in references:
        output.note(f"  - {one}")
    output.note("\nRemote includes could potentially be malicious. Make sure you trust the source.")
    return bool(answered("Do you want to continue?", default=False))


def _variables(project: Project) -> bool:
    """Whether these values of the variables are as they should be; yes if there are none."""
    from gemel.compose.files import DiskReader
    from gemel.compose.mentioned import mentions

    rows = [("VARIABLE", "VALUE", "SOURCE", "REQUIRED", "DEFAULT")]
    for one in mentions([path for path in project.files if path != "-"], DiskReader()):
        if one.name in os.environ:
            value, source = os.environ[one.name], "environment"
        elif one.name in project.environment:
            value, source = project.environment[one.name], "env file"
        elif one.default:
            value, source = one.default, "compose file"
        else:
            value, source = "<unset>", "none"
        rows.append((one.name, value, source, "yes" if one.required else "no", one.default))
    if len(rows) == 1:
        return True
    output.note("\nFound the following variables in configuration:")
    widths = [max(len(row[n]) for row in rows) + 3 for n in range(len(rows[0]))]
    for row in rows:
        output.note("".join(map(str.ljust, row, widths)).rstrip())
    return answered("\nDo you want to proceed with these variables?", default=True) is not False
