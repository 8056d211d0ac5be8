"""Requests and answers without streams."""

from __future__ import annotations

import asyncio
import base64
import gzip
import stat
from pathlib import Path

import msgspec
import pytest

from gemel.api import serve
from gemel.errors import Conflict
from tests.unit.api.conftest import Api, until
from tests.unit.api.memory import MemoryEngine


async def test_ping_says_what_clients_negotiate_by(api: Api) -> None:
    for method, prefix in (("GET", ""), ("HEAD", ""), ("GET", "/v1.24"), ("GET", "/v1.47")):
        status, body, headers = await api.call(method, prefix + "/_ping")
        assert status == 200
        assert body == (b"OK" if method == "GET" else b"")
        assert headers["Api-Version"] == "1.47"
        assert headers["Builder-Version"] == "1"
        assert headers["Swarm"] == "inactive"
        assert headers["Ostype"] == "linux"
        assert headers["Docker-Experimental"] == "false"
        assert "no-cache" in headers["Cache-Control"]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/v1.23/info", "client version 1.23 is too old. Minimum supported API version is 1.24"),
        ("/v1.99/info", "client version 1.99 is too new. Maximum supported API version is 1.47"),
    ],
)
async def test_versions_outside_are_refused(api: Api, path: str, words: str) -> None:
    status, body, headers = await api.call("GET", path)
    assert status == 400
    assert words in body["message"]
    assert headers["Api-Version"] == "1.47"


async def test_unknown_routes_are_not_found(api: Api) -> None:
    for method, path in (("GET", "/nothing"), ("PATCH", "/containers/json"), ("GET", "/v1.41/")):
        assert (await api.call(method, path))[:2] == (404, {"message": "page not found"})


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/containers/none/json", 404),
        ("POST", "/containers/box/pause", 501),
        ("POST", "/containers/box/unpause", 409),
        ("POST", "/containers/create?name=x", 400),
        ("GET", "/services", 503),
        ("GET", "/v1.30/nodes/a", 503),
        ("POST", "/swarm/leave", 503),
        ("POST", "/session", 404),
        ("POST", "/grpc", 404),
        ("GET", "/containers/box/logs", 400),
        ("GET", "/containers/box/archive", 400),
        ("POST", "/containers/box/wait?condition=later", 400),
        ("POST", "/containers/box/stop?t=1e3", 400),
        ("GET", "/images/search?term=x", 501),
        ("POST", "/commit?container=none", 404),
        ("POST", "/build?version=2", 501),
        ("GET", "/images/a/b/missing:1/json", 404),
        ("GET", "/containers/json?filters=[]", 400),
        ("GET", "/containers/json?filters={", 400),
    ],
)
async def test_errors_have_dockers_status_and_a_message(
    api: Api, method: str, path: str, status: int
) -> None:
    await api.make()
    got, body, _ = await api.call(method, path)
    assert got == status
    assert body["message"]


async def test_an_error_carries_its_resolution(api: Api) -> None:
    await api.make()
    _, body, _ = await api.call("POST", "/containers/box/pause")
    assert body == {"message": "a micro VM cannot be paused", "resolution": "stop it"}


async def test_starting_twice_is_not_modified(api: Api) -> None:
    await api.make()
    assert (await api.call("POST", "/containers/box/start"))[:2] == (204, b"")
    assert (await api.call("POST", "/containers/box/start"))[:2] == (304, b"")
    status, body, _ = await api.call("POST", "/containers/box/start", {"Binds": ["/:/x"]})
    assert status == 400
    assert "non-empty request body" in body["message"]


async def test_a_missing_command_has_the_words_that_give_exit_code_127(api: Api) -> None:
    await api.make(Cmd="missing")
    status, body, _ = await api.call("POST", "/containers/box/start")
    assert status == 400
    assert "executable file not found in $PATH" in body["message"]


async def test_bodies_are_read_as_go_reads_them(api: Api) -> None:
    id = await api.make(
        cmd="one string",
        ENV=["A=b"],
        Tty=None,
        StopTimeout=3.0,
        Unknown={"x": [1]},
        HostConfig={"memory": 1e6, "PortBindings": {"80/tcp": [{"HostPort": "8080"}, None]}},
    )
    request = api.engine.containers.all[id].request
    assert request.cmd == ["one string"]
    assert request.env == ["A=b"]
    assert request.tty is False
    assert request.stop_timeout == 3
    assert request.host_config is not None
    assert request.host_config.memory == 1_000_000
    assert request.host_config.network_mode == "default"
    bindings = request.host_config.port_bindings
    assert bindings is not None and bindings["80/tcp"] is not None
    assert [binding.host_port for binding in bindings["80/tcp"]] == ["8080", ""]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"x"',
        b"[" * 100_000,
        b'{"Image": "\\ud800"}',
        b'{"Tty": "yes"}',
        b'{"Env": {"A": "b"}}',
        b'{"Env": [1]}',
        b'{"HostConfig": {"Memory": "1g"}}',
        b'{"HostConfig": {"Memory": 1.5}}',
        b'{"HostConfig": {"Memory": 1e300}}',
        b'{"Labels": {"a": 1}}',
        b'{"Cmd": {"a": 1}}',
        b"{} {}",
    ],
)
async def test_wrong_bodies_are_refused(api: Api, body: bytes) -> None:
    status, answer, _ = await api.call("POST", "/containers/create", body)
    assert status == 400
    assert answer["message"].startswith("invalid JSON")


async def test_a_body_must_be_declared_as_json_and_is_bounded(api: Api) -> None:
    status, answer, _ = await api.call(
        "POST", "/containers/create", data=b"{}", headers={"Content-Type": "text/plain"}
    )
    assert (status, "must be 'application/json'" in answer["message"]) == (400, True)
    status, answer, _ = await api.call("POST", "/containers/create", b" " * (9 << 20))
    assert (status, "larger than" in answer["message"]) == (400, True)


async def test_filters_in_both_shapes_and_booleans_in_gos_forms(api: Api) -> None:
    for filters in ('{"name":["a","b"]}', '{"name":{"a":true,"b":true,"c":false}}'):
        await api.call(
            "GET", "/containers/json", params={"all": "True", "size": "0", "filters": filters}
        )
        assert api.engine.containers.last_list == (True, 0, False, {"name": ["a", "b"]})
    await api.call("GET", "/containers/json?limit=2")
    assert api.engine.containers.last_list == (True, 2, False, {})
    await api.call("GET", "/images/json?all=none&filter=busybox")
    assert api.engine.images.calls[-1] == ("list", False, {"reference": ["busybox"]})


async def test_names_of_images_may_hold_slashes_escaped_or_not(api: Api) -> None:
    for name in ("reg.example:5000/a/b:1", "reg.example:5000%2Fa%2Fb%3A1"):
        _, body, _ = await api.call("GET", f"/v1.40/images/{name}/json")
        assert body == {"Id": "reg.example:5000/a/b:1"}


async def test_pull_takes_credentials_and_tells_errors_where_they_happen(api: Api) -> None:
    auth = base64.urlsafe_b64encode(
        b'{"username": "u\xc3\xbf\xc3\xbf", "password": "p>?"}'
    ).decode()
    for text in (auth, auth.rstrip("=")):
        status, body, _ = await api.call(
            "POST",
            "/images/create?fromImage=a/b&tag=1&platform=linux/amd64",
            headers={"X-Registry-Auth": text},
        )
        assert (status, body) == (200, {"status": "Pulling", "id": "a"})
        expected = {"username": "uÿÿ", "password": "p>?"}
        assert api.engine.images.calls[-1] == ("pull", "a/b:1", expected, "linux/amd64")
    await api.call("POST", "/images/create?fromImage=a&tag=sha256:00")
    assert api.engine.images.calls[-1] == ("pull", "a@sha256:00", None, "")
    assert (await api.call("POST", "/images/create?fromImage=missing"))[0] == 404
    status, body, _ = await api.call("POST", "/images/create?fromImage=broken")
    lines = [msgspec.json.decode(line) for line in body.splitlines()]
    assert status == 200
    assert lines[1]["error"] == "the registry broke off: eof"
    assert lines[1]["errorDetail"] == {"message": "the registry broke off: eof"}


async def test_a_vanished_reader_ends_a_pull(api: Api) -> None:
    reader, writer = await api.raw(
        "POST /images/create?fromImage=endless HTTP/1.1\r\nHost: d\r\n\r\n"
    )
    await reader.readuntil(b"Downloading")
    writer.close()
    async with asyncio.timeout(60):
        await api.engine.images.stopped.wait()


async def test_build_gets_the_context_whatever_its_compression(api: Api) -> None:
    context = bytes(range(256)) * 40_000
    config = base64.urlsafe_b64encode(b'{"r": {"username": "u"}}').decode()
    for body in (context, gzip.compress(context, 1)):
        status, _, _ = await api.call(
            "POST",
            "/build?t=a&t=b&dockerfile=D",
            data=body,
            headers={"X-Registry-Config": config, "Content-Type": "application/x-tar"},
        )
        assert status == 200
        assert api.engine.images.received == context
        options = {"t": "a\nb", "dockerfile": "D"}
        assert api.engine.images.calls[-1] == ("build", options, {"r": {"username": "u"}})
    status, body, _ = await api.call(
        "POST", "/build", data=gzip.compress(context)[:-20] + b"x" * 30
    )
    assert (status, "damaged" in body["message"]) == (400, True)


async def test_images_travel_both_ways(api: Api) -> None:
    status, body, headers = await api.call("GET", "/images/get?names=a&names=b")
    assert (status, len(body), headers["Content-Type"]) == (200, 300_000, "application/x-tar")
    assert api.engine.images.calls[-1] == ("save", ["a", "b"])
    await api.call("GET", "/images/x/y:1/get")
    assert api.engine.images.calls[-1] == ("save", ["x/y:1"])
    await api.call("POST", "/images/load?quiet=1", data=b"tar" * 100_000)
    assert api.engine.images.received == b"tar" * 100_000
    await api.call("POST", "/images/create?fromSrc=-&repo=r&tag=t&changes=CMD+x", data=b"tar")
    assert api.engine.images.calls[-1] == ("import", "r", "t", "", ["CMD x"])
    await api.call("POST", "/images/create?fromSrc=http%3A//a/b&repo=r")
    assert api.engine.images.calls[-1] == ("import", "r", "", "Imported from http://a/b", [])
    assert api.engine.images.received == b"from http://a/b"


async def test_archive_goes_both_ways_with_its_header(api: Api) -> None:
    await api.make()
    body = gzip.compress(b"a tar")
    status, _, _ = await api.call("PUT", "/containers/box/archive?path=/x", data=body)
    assert status == 200
    status, got, headers = await api.call("GET", "/containers/box/archive?path=/x")
    assert got == b"a tar"
    for text in (
        headers["X-Docker-Container-Path-Stat"],
        (await api.call("HEAD", "/containers/box/archive?path=/x"))[2][
            "X-Docker-Container-Path-Stat"
        ],
    ):
        assert msgspec.json.decode(base64.b64decode(text)) == {
            "name": "passwd",
            "size": 3,
            "mode": 0o644,
            "mtime": "1970-01-01T00:00:01.500000Z",
            "linkTarget": "",
        }


async def test_stats_carry_the_sample_before(api: Api) -> None:
    await api.make()
    _, one, _ = await api.call("GET", "/containers/box/stats?stream=false&one-shot=1")
    assert one["precpu_stats"]["cpu_usage"]["total_usage"] == 0
    _, two, _ = await api.call("GET", "/containers/box/stats?stream=0")
    assert (two["precpu_stats"], two["cpu_stats"]) == ({"n": 2}, {"n": 3})
    assert (two["preread"], two["read"]) == ("t2", "t3")


async def test_wait_answers_with_headers_before_the_end(api: Api) -> None:
    await api.make()
    async with api.session.post("http://d/containers/box/wait?condition=next-exit") as response:
        assert response.status == 200  # while it is not even started
        await api.call("POST", "/containers/box/kill")
        assert msgspec.json.decode(await response.read()) == {"StatusCode": 3}


async def test_events_flow_at_once_and_end_with_their_reader(api: Api) -> None:
    async with api.session.get("http://d/events") as response:
        assert response.status == 200
        for number in range(3):
            await api.engine.system.queue.put({"n": number})
            assert msgspec.json.decode(await response.content.readline()) == {"n": number}
        assert api.engine.system.listeners == 1
        response.close()
    await until(lambda: api.engine.system.listeners == 0)
    status, body, _ = await api.call("GET", "/events?since=0&until=1.5")
    assert (status, body) == (200, b"")


async def test_networks_and_volumes(api: Api) -> None:
    status, _, _ = await api.call(
        "POST",
        "/networks/create",
        {"Name": "n", "IPAM": {"Config": [{"Subnet": "10.9.0.0/24"}]}, "CheckDuplicate": True},
    )
    assert status == 201
    ipam = api.engine.networks.requests[0].ipam
    assert ipam is not None and ipam.config is not None
    assert ipam.config[0].subnet == "10.9.0.0/24"
    endpoint = {"Container": "c", "EndpointConfig": {"Aliases": ["a"], "NetworkID": "n"}}
    assert (await api.call("POST", "/networks/n/connect", endpoint))[0] == 200
    assert api.engine.networks.connected[0][2].aliases == ["a"]
    assert (await api.call("POST", "/networks/create", {}))[0] == 400
    assert (await api.call("POST", "/volumes/create", {"Name": "v"}))[:2] == (201, {"Name": "v"})
    assert (await api.call("DELETE", "/volumes/v?force=1"))[0] == 204
    assert (await api.call("GET", "/networks/x"))[0] == 404


async def test_kernels_are_built_and_chosen(api: Api) -> None:
    _, lines, _ = await api.call("POST", "/gemel/kernels/build?jobs=3&use=0")
    assert b"jobs 3, use False" in (lines if isinstance(lines, bytes) else str(lines).encode())
    status, _, _ = await api.call("POST", "/gemel/kernels/build?jobs=0")
    assert status == 400
    status, told, _ = await api.call("POST", "/gemel/kernels/use?name=linux")
    assert (status, told["Used"]) == (200, True)
    assert (await api.call("POST", "/gemel/kernels/use?name=other"))[0] == 404
    assert (await api.call("POST", "/gemel/kernels/use"))[0] == 400


async def test_gemels_own_routes(api: Api) -> None:
    _, version, _ = await api.call("GET", "/gemel/version")
    assert version == {"Version": "0.1.0", "ApiVersion": "1.47", "MinAPIVersion": "1.24"}
    _, checks, _ = await api.call("GET", "/gemel/doctor")
    assert checks[0]["name"] == "kvm"
    await api.call(
        "POST", "/gemel/images/bootstrap?ref=debian&suite=bookworm&packages=a,b&packages=c"
    )
    assert api.engine.images.calls[-1] == ("bootstrap", "debian", "bookworm", ["a", "b", "c"])
    assert (await api.call("POST", "/gemel/shutdown"))[0] == 202


async def test_an_error_inside_is_told_without_its_traceback(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken() -> dict[str, object]:
        raise ZeroDivisionError("secret detail")

    api.engine.system.info = broken  # type: ignore[method-assign]
    status, body, _ = await api.call("GET", "/info")
    assert status == 500
    assert "secret" not in str(body) and "Traceback" not in str(body)


async def test_the_socket_is_private_and_only_a_dead_one_is_replaced(tmp_path: Path) -> None:
    socket = tmp_path / "s"
    first = await serve(MemoryEngine(), socket)
    try:
        assert stat.S_IMODE(socket.stat().st_mode) == 0o660
        with pytest.raises(Conflict):
            await serve(MemoryEngine(), socket)
        socket.rename(tmp_path / "old")
    finally:
        await first.close(1)
    # what a killed engine leaves: a socket that nobody listens on
    (tmp_path / "old").rename(socket)
    second = await serve(MemoryEngine(), socket)
    await first.close(1)
    assert socket.exists()
    await second.close(1)
    assert not socket.exists()
