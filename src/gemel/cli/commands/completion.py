"""completion: scripts for shells."""

from __future__ import annotations

import click

from gemel.cli import output
from gemel.cli.app import command


@command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a completion script for a shell.

    bash: `source <(gemel completion bash)` in ~/.bashrc; zsh the same in ~/.zshrc;
    fish: `gemel completion fish > ~/.config/fish/completions/gemel.fish`.
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"no completion for {shell}")
    root = ctx.find_root().command
    output.say(kind(root, {}, "gemel", "_GEMEL_COMPLETE").source())
