"""docker-credential-* programs: where ``docker login`` keeps passwords if it is told to."""

from __future__ import annotations

import json
import re
import subprocess

from gemel.errors import Failed

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
#: Seconds; a helper may ask a person for a passphrase.
_TIMEOUT = 60.0
_NONE = "credentials not found"


def ask(helper: str, host: str) -> tuple[str, str] | None:
    """User name and secret that a helper has for a registry, None if it has none. Blocks.

    helper: what follows ``docker-credential-``. Raises Failed.
    """
    if not _NAME.fullmatch(helper):
        raise Failed(f"{helper!r} is no name of a credential helper")
    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run(
            [program, "get"],
            input=host.encode(),
            capture_output=True,
            timeout=_TIMEOUT,
            check=False,
        )
        told = (done.stdout + done.stderr).decode("utf-8", "replace").strip()
        if done.returncode:
            if _NONE in told:
                return None
            raise Failed(f"{program} failed for {host}", told[-1000:])
        answer = json.loads(done.stdout)
        return str(answer["Username"]), str(answer["Secret"])
    except FileNotFoundError:
        raise Failed(
            f"{program} is not installed",
            details="Docker's config.json names it for the credentials of registries",
            resolution="install it, or take it out of credsStore and credHelpers there",
        ) from None
    except subprocess.TimeoutExpired:
        raise Failed(f"{program} did not answer within {_TIMEOUT:g} s") from None
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise Failed(f"{program} answered what is not understood", str(error)) from error
