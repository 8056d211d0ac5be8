"""Starting a program that outlives the caller. Light to import: the command line does it."""

from __future__ import annotations

import os
from collections.abc import Sequence

from gemel.errors import Unavailable


def start(argv: Sequence[str], log_path: str) -> int:
    """Starts ``argv`` in a session of its own, output appended to ``log_path``; gives back its pid.

    The caller stays its parent until it ends. Raises Unavailable if it cannot be run.
    """
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.posix_spawn(
            argv[0],
            list(argv),
            os.environ,
            setsid=True,
            setsigdef=[1, 2, 3, 13, 15],
            setsigmask=[],
            file_actions=[
                (os.POSIX_SPAWN_DUP2, null, 0),
                (os.POSIX_SPAWN_DUP2, log, 1),
                (os.POSIX_SPAWN_DUP2, log, 2),
            ],
        )
    except OSError as error:
        raise Unavailable(f"cannot start {argv[0]}", details=str(error)) from error
    finally:
        os.close(log)
        os.close(null)
