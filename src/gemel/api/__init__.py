"""The Docker Engine API, and gemel's own routes under /gemel, over a unix socket."""

from gemel.api.server import Server, serve

__all__ = ["Server", "serve"]
