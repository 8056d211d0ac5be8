"""Options that `build` and `image build` share: limits, secrets, further contexts."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import click

from gemel.cli import values
from gemel.client import buildextras

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--secret", "secrets", multiple=True, metavar="id=ID,src=FILE|env=NAME",
                 help="A secret for RUN --mount=type=secret; kept nowhere."),
    click.option("--ssh", multiple=True, metavar="ID=KEYFILE",
                 help="A private key for RUN --mount=type=ssh."),
    click.option("--build-context", "contexts", multiple=True, metavar="NAME=PLACE",
                 help="A further context: a folder, docker-image://NAME or a URL."),
    click.option("--cache-from", multiple=True, metavar="type=registry,ref=NAME",
                 help="A registry's repository to take built steps from."),
    click.option("--cache-to", multiple=True, metavar="type=registry,ref=NAME",
                 help="A registry's repository to send built steps to."),
    click.option("-m", "--memory", default="", metavar="BYTES", help="Memory of the build: 512m."),
    click.option("--memory-swap", default="", metavar="BYTES", help="Memory and swap; -1: any."),
    click.option("-c", "--cpu-shares", type=int, default=0, help="Relative weight; 1024 is one."),
    click.option("--cpu-period", type=int, default=0, metavar="MICROSECONDS", help="See quota."),
    click.option("--cpu-quota", type=int, default=0, metavar="MICROSECONDS",
                 help="CPU time in each period (100000)."),
    click.option("--cpuset-cpus", default="", metavar="LIST", help="CPUs to run on: 0-3,6."),
    click.option("--cpuset-mems", default="", metavar="LIST", help="Memory nodes: 0-1."),
    click.option("--shm-size", default="", metavar="BYTES", help="Size of /dev/shm (64m)."),
    click.option("--ulimit", "ulimits", multiple=True, metavar="NAME=SOFT:HARD", help="A ulimit."),
)  # fmt: skip


def extras(function: F) -> F:
    """Adds the options; their values come as keywords, to be handed to ``limits`` and others."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def limits(given: dict[str, Any]) -> dict[str, Any]:
    """Parameters of POST /build from the options. Raises InvalidInput."""
    swap = given["memory_swap"]
    query: dict[str, Any] = {
        "memory": values.size(given["memory"]) if given["memory"] else None,
        "memswap": -1 if swap == "-1" else values.size(swap) if swap else None,
        "cpushares": given["cpu_shares"] or None,
        "cpuperiod": given["cpu_period"] or None,
        "cpuquota": given["cpu_quota"] or None,
        "cpusetcpus": given["cpuset_cpus"] or None,
        "cpusetmems": given["cpuset_mems"] or None,
        "shmsize": values.size(given["shm_size"]) if given["shm_size"] else None,
    }
    if given["ulimits"]:
        query["ulimits"] = json.dumps([values.ulimit(text) for text in given["ulimits"]])
    return {name: value for name, value in query.items() if value is not None}


def parameters(given: dict[str, Any]) -> dict[str, Any]:
    """Parameters of POST /build: ``limits``, and where the cache is. Raises InvalidInput."""
    query = limits(given)
    for name in ("cache_from", "cache_to"):
        if given[name]:
            query[name.replace("_", "")] = json.dumps(given[name])
    return query


def private(given: dict[str, Any]) -> tuple[list[buildextras.Secret], dict[str, str | None]]:
    """Secrets and SSH keys of the options. Raises InvalidInput."""
    return [buildextras.secret(text) for text in given["secrets"]], buildextras.keys(given["ssh"])


def contexts(given: dict[str, Any]) -> dict[str, str]:
    """Further contexts of the options by name. Raises InvalidInput."""
    return buildextras.named(given["contexts"], "build context")
