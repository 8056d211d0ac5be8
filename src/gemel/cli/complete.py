"""Completion of service names and containers. Says nothing when it cannot know."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from gemel.cli.app import App

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class Names(click.ParamType[str]):
    """Services of the Compose file, and with ``containers`` also containers' names."""

    name = "text"

    def __init__(self, *, services: bool = True, containers: bool = True) -> None:
        self.services = services
        self.containers = containers

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        found: list[str] = []
        app = _app(ctx)
        try:
            remote = any(name.startswith("oci://") for name in app.files)
            if self.services and app.compose_files() and not remote:
                found += list(app.project().services)
        except Exception:  # a completion must never print
            pass
        try:
            if self.containers and not found:
                found += _containers(app)
        except Exception:
            pass
        return [CompletionItem(name) for name in found if name.startswith(incomplete)]


def _app(ctx: click.Context) -> App:
    """The options before the command, whose callback does not run while completing."""
    top = ctx.find_root()
    values = {key: value for key, value in top.params.items() if value}
    return App(
        files=values.get("files", ()),
        project_name=values.get("project_name", ""),
        profiles=values.get("profiles", ()),
        env_files=values.get("env_files", ()),
        project_directory=values.get("project_directory", ""),
        host=values.get("host", ""),
        root=values.get("root", ""),
        run_dir=values.get("run_dir", ""),
    )


def _containers(app: App) -> list[str]:
    from gemel.client.engine import Client

    listed = Client(app.place, start=False).get("/containers/json", all=True, timeout=2)
    return [entry["Names"][0].lstrip("/") for entry in listed if entry.get("Names")]


SERVICES = Names(containers=False)
TARGETS = Names()
