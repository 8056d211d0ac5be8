"""docker-py and aiodocker, unchanged, drive an engine."""

from __future__ import annotations

import asyncio
import io
import socket
import tarfile
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiodocker
import docker
import pytest

from tests.engine import IMAGE, EngineProcess
from tests.images import busybox_tar, make_tar

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def client(engine: EngineProcess) -> Iterator[Any]:
    found = docker.DockerClient(base_url=f"unix://{engine.paths.socket}", timeout=180)
    yield found
    found.close()


@pytest.fixture
async def aio(engine: EngineProcess) -> AsyncIterator[aiodocker.Docker]:
    found = aiodocker.Docker(url=f"unix://{engine.paths.socket}")
    yield found
    await found.close()


def test_run(client: Any) -> None:
    assert client.ping()
    assert client.containers.run(IMAGE, ["echo", "hi"], remove=True) == b"hi\n"
    with pytest.raises(docker.errors.ContainerError) as caught:
        client.containers.run(IMAGE, ["sh", "-c", "echo no >&2; exit 3"], remove=True)
    assert (caught.value.exit_status, caught.value.stderr) == (3, b"no\n")
    with pytest.raises(docker.errors.NotFound):
        client.containers.get("none")
    with pytest.raises(docker.errors.ImageNotFound):
        client.images.get("none:none")


def test_a_container_of_docker_py(client: Any) -> None:
    one = client.containers.run(
        IMAGE, ["sleep", "1000"], detach=True, labels={"who": "py"}, environment={"A": "1"}
    )
    try:
        assert [c.id for c in client.containers.list(filters={"label": "who=py"})] == [one.id]
        code, (out, err) = one.exec_run(["sh", "-c", "echo $A; echo e >&2; exit 2"], demux=True)
        assert (code, out, err) == (2, b"1\n", b"e\n")
        assert one.put_archive("/tmp", make_tar({"given": b"x" * 100_000}))
        pieces, stat = one.get_archive("/tmp/given")
        assert stat["size"] == 100_000
        with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as archive:
            member = archive.extractfile("given")
            assert member is not None and member.read() == b"x" * 100_000
        two = one.stats(stream=False)
        assert two["cpu_stats"]["system_cpu_usage"] > two["precpu_stats"]["system_cpu_usage"] > 0
        samples = one.stats(stream=True, decode=True)
        assert next(samples)["memory_stats"]["usage"] > 0
        samples.close()
        assert one.top()["Processes"]
        one.stop(timeout=0)
        assert one.wait()["StatusCode"] == 137
    finally:
        one.remove(force=True)


def test_a_raw_socket_of_docker_py(client: Any) -> None:
    """The hijacked socket itself: written, half-closed, read to the end."""
    one = client.containers.run(IMAGE, ["sleep", "1000"], detach=True)
    try:
        made = client.api.exec_create(one.id, ["cat"], stdin=True)
        stream = client.api.exec_start(made["Id"], socket=True)
        raw = stream._sock
        raw.sendall(b"through exec")
        raw.shutdown(socket.SHUT_WR)
        data = b""
        while piece := raw.recv(4096):
            data += piece
        assert data == b"\x01\0\0\0\0\0\0\x0cthrough exec"
        stream.close()
        deadline = time.monotonic() + 60
        while client.api.exec_inspect(made["Id"])["Running"]:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert client.api.exec_inspect(made["Id"])["ExitCode"] == 0
    finally:
        one.remove(force=True)


def test_logs_and_events_of_docker_py(client: Any) -> None:
    events = client.events(decode=True, filters={"type": "container", "label": "ev=1"})
    one = client.containers.run(
        IMAGE, ["sh", "-c", "echo a; echo b; sleep 1; echo c"], detach=True, labels={"ev": "1"}
    )
    try:
        assert list(one.logs(stream=True, follow=True)) == [b"a\n", b"b\n", b"c\n"]
        assert one.logs(tail=1) == b"c\n"
        seen: list[str] = []
        for event in events:
            seen.append(event["Action"])
            if event["Action"] == "die":
                break
        assert [a for a in seen if a in ("create", "start", "die")] == ["create", "start", "die"]
        events.close()
    finally:
        one.remove(force=True)


def test_networks_and_volumes_of_docker_py(client: Any) -> None:
    network = client.networks.create("py-net", labels={"a": "b"})
    volume = client.volumes.create("py-vol")
    try:
        one = client.containers.run(
            IMAGE, ["sleep", "1000"], detach=True, volumes={"py-vol": {"bind": "/v", "mode": "rw"}}
        )
        try:
            network.connect(one, aliases=["alias"])
            network.reload()
            assert [c.id for c in network.containers] == [one.id]
            network.disconnect(one)
        finally:
            one.remove(force=True)
    finally:
        network.remove()
        volume.remove()
    assert client.networks.list(names=["py-net"]) == []


def test_images_of_docker_py(client: Any) -> None:
    image = client.images.get(IMAGE)
    data = b"".join(image.save(named=True))
    [loaded] = client.images.load(data)
    assert loaded.id == image.id
    lines = client.api.import_image_from_data(busybox_tar(), repository="py/import", tag="1")
    assert "sha256" in str(lines)
    client.images.remove("py/import:1")
    built, _ = client.images.build(
        fileobj=io.BytesIO(f"FROM {IMAGE}\nLABEL built=py\n".encode()), tag="py/built:1"
    )
    assert built.labels["built"] == "py"
    client.images.remove("py/built:1", force=True)


async def test_a_container_of_aiodocker(aio: aiodocker.Docker) -> None:
    one = await aio.containers.create_or_replace(
        "aio", {"Image": IMAGE, "Cmd": ["sh", "-c", "read x; echo got $x"], "OpenStdin": True,
                "StdinOnce": True, "AttachStdin": True, "AttachStdout": True}
    )  # fmt: skip
    try:
        attached = one.attach(stdin=True, stdout=True, stderr=True)
        async with attached, asyncio.timeout(120):
            await one.start()
            await attached.write_in(b"words\n")
            message = await attached.read_out()
            assert message is not None and message.data == b"got words\n"
        assert (await one.wait())["StatusCode"] == 0
        assert await one.log(stdout=True) == ["got words\n"]
    finally:
        await one.delete(force=True)


async def test_exec_and_websocket_of_aiodocker(aio: aiodocker.Docker) -> None:
    one = await aio.containers.run(
        {"Image": IMAGE, "Cmd": ["cat"], "OpenStdin": True, "Tty": False}, name="aio2"
    )
    try:
        run = await one.exec(["sh", "-c", "cat; exit 6"], stdin=True)
        async with run.start() as stream, asyncio.timeout(120):
            await stream.write_in(b"typed\n")
            message = await stream.read_out()
            assert message is not None and message.data == b"typed\n"
        async with asyncio.timeout(120):
            wire = await one.websocket(stdin=True, stdout=True, stream=True)
            await wire.send_bytes(b"over websocket\n")
            assert await wire.receive_bytes() == b"over websocket\n"
            await wire.close()
    finally:
        await one.delete(force=True)


async def test_images_and_events_of_aiodocker(aio: aiodocker.Docker) -> None:
    subscriber = aio.events.subscribe()
    async with asyncio.timeout(120):
        while True:
            # the subscription begins some time after the call: what was before it is not told
            await aio.images.tag(IMAGE, repo="aio/image", tag="1")
            try:
                event = await asyncio.wait_for(subscriber.get(), 2)
            except TimeoutError:
                continue
            assert event is not None
            if event["Type"] == "image" and event["Action"] == "tag":
                break
    assert await aio.images.inspect("aio/image:1")
    await aio.images.delete("aio/image:1")
    assert (await aio.system.info())["OSType"] == "linux"
    with pytest.raises(aiodocker.DockerError) as caught:
        await aio.images.inspect("aio/image:1")
    assert caught.value.status == 404
