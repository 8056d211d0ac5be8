"""What can go wrong, told in three parts: brief, details, resolution.

    GemelError
    ├── InvalidInput      the request or a file is wrong              (HTTP 400)
    ├── NotFound          no such container, image, network, volume   (HTTP 404)
    ├── Conflict          in use, exists already, wrong state         (HTTP 409)
    ├── NotModified       it is already so                            (HTTP 304)
    ├── Unsupported       gemel does not do this, or not here         (HTTP 501)
    ├── Unavailable       a needed tool, engine or resource is away   (HTTP 503)
    └── Failed            a program or the kernel refused             (HTTP 500)
        ├── Unauthorized        a registry refused the credentials (HTTP 401)
        ├── StepFailed          a step of a build; exit code of `docker build`
        ├── CommandNotFound     the program is not in the image; exit code 127
        └── CommandNotRunnable  it is there and cannot be run; exit code 126

The API maps a class to its status; the command line prints the three parts.
"""

from __future__ import annotations


class GemelError(Exception):
    """An error that a person reads.

    brief: one sentence, no full stop. details: what is behind it, may have
    several lines. resolution: what the reader can do about it.
    """

    def __init__(self, brief: str, details: str = "", resolution: str = "") -> None:
        super().__init__(brief)
        self.brief = brief
        self.details = details
        self.resolution = resolution

    def __str__(self) -> str:
        return "\n".join(part for part in (self.brief, self.details, self.resolution) if part)


class InvalidInput(GemelError):
    """The request, or a file of the user's, is wrong."""


class NotFound(GemelError):
    """There is nothing of that name."""


class Conflict(GemelError):
    """It exists already, is in use, or is in the wrong state."""


class NotModified(GemelError):
    """There is nothing to do: it is as asked already."""


class Unsupported(GemelError):
    """gemel cannot do this, or not on this host."""


class Unavailable(GemelError):
    """A tool, the engine or a resource that is needed is not there (now)."""


class Failed(GemelError):
    """A program or the kernel refused."""


class Unauthorized(Failed):
    """A registry refused the credentials."""


class StepFailed(Failed):
    """A step of a build ended with a status other than 0: ``code``."""

    def __init__(self, brief: str, details: str = "", resolution: str = "", code: int = 1) -> None:
        super().__init__(brief, details, resolution)
        self.code = code


class CommandNotFound(Failed):
    """The program to run is not in the image (exit code 127)."""


class CommandNotRunnable(Failed):
    """The program to run is there and cannot be executed (exit code 126)."""
