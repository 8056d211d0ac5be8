"""What docker does with images and the files of containers: export, diff, commit, registries."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import tarfile
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.dockercli import Docker
from tests.engine import IMAGE, EngineProcess
from tests.imagestore import registry

pytestmark = pytest.mark.root

CHANGES = (
    "echo new > /etc/new; echo more >> /etc/passwd; rm /etc/group; mkdir /opt; ln -s x /opt/l;"
    " rm -r /home/app; mkdir /home/app; echo in > /home/app/in; echo kept > /vol/file"
)


@pytest.fixture(scope="module")
def docker(engine: EngineProcess) -> Docker:
    return Docker(engine)


@pytest.fixture(params=["runc", "kata"])
def changed(request: pytest.FixtureRequest, docker: Docker) -> Iterator[str]:
    """A running instance (container, micro VM) that has changed files of its image."""
    name = f"changed-{request.param}"
    docker.ok(
        "run", "-d", "--runtime", request.param, "--name", name, "-v", "/vol", "-e", "A=b",
        "-w", "/tmp", IMAGE, "sh", "-c", CHANGES + "; echo ready; exec sleep 1000",
    )  # fmt: skip
    try:
        follower = docker.start("logs", "-f", name)
        with contextlib.ExitStack() as stack:
            stack.callback(follower.wait)
            stack.callback(follower.kill)
            assert follower.stdout is not None
            assert follower.stdout.readline() == b"ready\n"
            follower.stdout.close()
            assert follower.stderr is not None
            follower.stderr.close()
            assert follower.stdin is not None
            follower.stdin.close()
        yield name
    finally:
        docker.ok("rm", "-fv", name)


def test_diff_export_and_commit(docker: Docker, changed: str, tmp_path: Path) -> None:
    found = set(docker.ok("diff", changed).splitlines())
    assert {"A /etc/new", "C /etc/passwd", "D /etc/group", "C /etc", "A /opt", "A /opt/l"} <= found
    assert "A /home/app/in" in found and not any("/vol/" in line for line in found)

    docker.ok("export", "-o", str(tmp_path / "root.tar"), changed)
    with tarfile.open(tmp_path / "root.tar") as tar:
        names = {name.removeprefix("./") for name in tar.getnames()}
        inside = tar.extractfile(next(n for n in tar.getnames() if n.endswith("etc/new")))
        assert inside is not None and inside.read() == b"new\n"
    assert {"bin/busybox", "opt/l", "home/app/in"} <= names
    assert not names & {"etc/group", "vol/file", "proc/1"}

    image = f"committed/{changed}:1"
    docker.ok(
        "commit", "-m", "why", "-a", "me", "-c", 'CMD ["cat", "/etc/new"]', "-c", "ENV C=d",
        changed, image,
    )  # fmt: skip
    assert docker.ok("run", "--rm", image) == "new\n"
    script = "cat /home/app/in; ls /etc/group /vol; echo $A $C; pwd"
    done = docker.run("run", "--rm", image, "sh", "-c", script)
    assert done.stdout.splitlines() == [b"in", b"/vol:", b"b d", b"/tmp"], done
    [shown] = json.loads(docker.ok("inspect", image))
    assert (shown["Comment"], shown["Author"]) == ("why", "me")
    assert len(shown["RootFS"]["Layers"]) == 2
    docker.ok("rmi", image)


def test_sizes(docker: Docker) -> None:
    docker.ok("run", "--name", "big", IMAGE, "dd", "if=/dev/urandom", "of=/x", "bs=1M", "count=3")
    assert docker.ok("ps", "-as", "--filter", "name=big", "--format", "{{.Size}}").startswith("3")
    [entry] = json.loads(docker.ok("inspect", "-s", "big"))
    assert 3 << 20 <= entry["SizeRw"] < 4 << 20 and entry["SizeRootFs"] > entry["SizeRw"]
    rows = [json.loads(r) for r in docker.ok("system", "df", "--format", "{{json .}}").splitlines()]
    assert {row["Type"]: row["TotalCount"] for row in rows}["Images"] == "1"
    docker.ok("rm", "big")


@pytest.fixture
async def registry_address(tmp_path: Path) -> AsyncIterator[str]:
    async with registry(tmp_path / "registry", password=True) as address:
        yield address


async def test_login_push_and_pull(
    docker: Docker, engine: EngineProcess, registry_address: str
) -> None:
    """A registry that wants a password: credentials as docker login leaves them."""
    run = partial(asyncio.to_thread, docker.run)
    ok = partial(asyncio.to_thread, docker.ok)
    name = f"{registry_address}/team/app:1"
    await ok("tag", IMAGE, name)
    done = await run("push", name)
    assert done.returncode == 1 and b"unauthorized" in done.stderr, done

    login = ("login", "-u", "user", "--password-stdin", registry_address)
    done = await run(*login, input=b"wrong")
    assert done.returncode == 1 and b"401 Unauthorized" in done.stderr, done
    assert "Login Succeeded" in await ok(*login, input=b"secret")
    since = str(int(time.time()) - 1)
    assert "digest: sha256:" in await ok("push", name)
    await ok("rmi", name)
    # the same credentials, by the other command line
    await asyncio.to_thread(engine.gemel, "image", "pull", name)
    assert await ok("images", "-q", name) != ""
    described = json.loads(await ok("manifest", "inspect", "--insecure", name))
    assert len(described["layers"]) == 1
    until = str(int(time.time()) + 1)
    events = await ok("events", "--since", since, "--until", until, "--filter", "type=image",
                      "--format", "{{.Action}} {{.Actor.ID}}")  # fmt: skip
    assert {f"push {name}", f"pull {name}"} <= set(events.splitlines())
    auth = base64.urlsafe_b64encode(b'{"username":"user","password":"secret"}').decode()
    found = await asyncio.to_thread(
        engine.ok, "GET", f"/distribution/{name}/json", headers={"X-Registry-Auth": auth}
    )
    assert found["Platforms"] == [{"architecture": "amd64", "os": "linux"}]
    assert found["Descriptor"]["digest"].startswith("sha256:")
    await ok("logout", registry_address)
    await ok("rmi", name)
    assert (await run("pull", name)).returncode == 1
