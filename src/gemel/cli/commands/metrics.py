"""metrics: the engine's figures as Prometheus reads them."""

from __future__ import annotations

from gemel.cli import output
from gemel.cli.app import App, command, pass_app


@command()
@pass_app
def metrics(app: App) -> None:
    """Print figures of the engine, instances and calls in Prometheus' format."""
    raw = app.client.call("GET", "/gemel/metrics").read()
    output.say(raw.decode("utf-8", "replace").rstrip("\n"))
