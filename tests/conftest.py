"""Everything as root runs in network and mount namespaces of its own.

So a test's bridges, rules and mounts are never the machine's, and end with it.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from gemel.host import mountns, mounts
from tests import engine, leaks
from tests.engine import STARTED

# The same examples every time; GEMEL_FUZZ=1 takes others at each run, to look for new ones.
# How long the machine takes over them is not what is tested.
settings.register_profile(
    "gemel",
    deadline=None,
    max_examples=60,
    derandomize="GEMEL_FUZZ" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("gemel")

# VMs that stand by would take the suite's CPUs; their own tests switch them on
os.environ.setdefault("GEMEL_MICROVM_STANDBY", "0")

CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, 0x8914, struct.pack("16sh14x", b"lo", 0x1 | 0x40))  # SIOCSIFFLAGS


def _isolate() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS | CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    mounts.mount("none", "/", flags=mounts.Flag.REC | mounts.Flag.PRIVATE)
    mountns.hide_unified()  # as the engine does for itself
    _loopback_up()


def _close_the_sources() -> None:
    """Engines run from folders that only root may enter, as after a clone in root's home."""
    mounts.mount("closed", "/mnt", "tmpfs", data="mode=700")
    for name, folder in (("gemel", engine.SOURCE.parent), ("python", Path(sys.prefix))):
        closed = Path("/mnt", name)
        closed.mkdir()
        mounts.mount(str(folder), closed, flags=mounts.Flag.BIND | mounts.Flag.REC)
    engine.SOURCE = Path("/mnt/gemel/src")
    if sys.prefix != sys.base_prefix:
        sys.executable = "/mnt/python/bin/python"


def pytest_configure(config: pytest.Config) -> None:
    # tests send it to commands, which ignore it when a shell has begun all this in its background
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # with xdist the workers isolate themselves; the controller runs no test
    controller = getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput")
    if os.geteuid() == 0 and not controller:
        _isolate()
        _close_the_sources()


def _faked(item: pytest.Item) -> bool:
    """Whether it runs on the fake runtime (tests/fake), which needs nothing of the host."""
    call = getattr(item, "callspec", None)
    return call is not None and call.params.get("harness") == "fake"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # the longest first: begun last, it would go on alone after all others
    items.sort(key=lambda item: item.path.name != "test_shop.py")
    if os.geteuid() != 0:
        for item in items:
            if "root" in item.keywords and not _faked(item):
                item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """After all tests (of this worker): no process, mount, interface, cgroup, folder or file."""
    own = tmp_path_factory.mktemp("var-tmp")  # programs that gemel runs have their files there
    if os.geteuid() == 0:
        mounts.mount(str(own), "/var/tmp", flags=mounts.Flag.BIND)
    yield
    deadline = time.monotonic() + 90
    while (left := leaks.all(STARTED, own)) and time.monotonic() < deadline:
        time.sleep(0.2)  # the kernel tidies up behind
    assert not left, "the tests left behind:\n" + "\n".join(left)
