"""Details that the suites of Docker's clients look at."""

from __future__ import annotations

import json

import pytest

from tests.engine import IMAGE, EngineProcess

pytestmark = pytest.mark.root


def made(engine: EngineProcess, name: str, *cmd: str, **more: object) -> str:
    """Creates a container; its id."""
    body = {"Image": IMAGE, "Cmd": list(cmd) or ["sleep", "1000"], **more}
    body["HostConfig"] = {"Init": True, **dict(more.get("HostConfig", {}))}  # type: ignore[call-overload]
    return str(engine.ok("POST", f"/containers/create?name={name}", body)["Id"])


def output(engine: EngineProcess, name: str) -> str:
    """Runs it to its end; what it wrote."""
    engine.ok("POST", f"/containers/{name}/start")
    engine.ok("POST", f"/containers/{name}/wait")
    return engine.answer("GET", f"/containers/{name}/logs?stdout=1")[2].decode("latin-1")


def test_a_variable_without_a_value_is_shown_and_not_given(engine: EngineProcess) -> None:
    made(engine, "bare", "env", Env=["BARE", "EMPTY=", "FULL=1"])
    shown = engine.ok("GET", "/containers/bare/json")["Config"]["Env"]
    assert {"BARE", "EMPTY=", "FULL=1"} <= set(shown)
    given = output(engine, "bare")
    assert "EMPTY=" in given and "FULL=1" in given and "BARE" not in given


def test_diff_shows_what_was_changed_only(engine: EngineProcess) -> None:
    made(engine, "changed", "sh", "-c", "echo a >/new; mkdir -p /etc/x")
    output(engine, "changed")
    changes = engine.ok("GET", "/containers/changed/changes")
    assert {"Path": "/new", "Kind": 1} in changes
    assert {"Path": "/etc/x", "Kind": 1} in changes
    assert {c["Path"] for c in changes} == {"/new", "/etc", "/etc/x"}


def test_prune_tells_what_it_freed(engine: EngineProcess) -> None:
    made(engine, "pruned", "dd", "if=/dev/zero", "of=/file", "bs=1M", "count=1")
    output(engine, "pruned")
    done = engine.ok("POST", "/containers/prune")
    assert done["SpaceReclaimed"] >= 1 << 20


def test_commit_of_what_is_about_to_end(engine: EngineProcess) -> None:
    for n in range(5):
        made(engine, f"ends{n}", "true")
        engine.ok("POST", f"/containers/ends{n}/start")
        engine.ok("POST", f"/commit?container=ends{n}&repo=ended{n}")


def test_links_on_a_network_are_names_for_one_only(engine: EngineProcess) -> None:
    engine.ok("POST", "/networks/create", {"Name": "linked net"})
    places = {"EndpointsConfig": {"linked net": {}}}
    host = {"NetworkMode": "linked net"}
    made(engine, "link-to", NetworkingConfig=places, HostConfig=host)
    engine.ok("POST", "/containers/link-to/start")
    linked = {"EndpointsConfig": {"linked net": {"Links": ["link-to:other", "link-to"]}}}
    ask = ("sh", "-c", "nslookup other; nslookup link-to >/dev/null && echo found")
    made(engine, "link-from", *ask, NetworkingConfig=linked, HostConfig=host)
    made(engine, "link-none", *ask, NetworkingConfig=places, HostConfig=host)
    ends = engine.ok("GET", "/containers/link-to/json")["NetworkSettings"]["Networks"]
    address = ends["linked net"]["IPAddress"]
    found = output(engine, "link-from")
    assert address in found and "found" in found
    assert "NXDOMAIN" in output(engine, "link-none")


def test_what_was_asked_for_is_shown(engine: EngineProcess) -> None:
    host = {"Runtime": "runc", "LogConfig": {"Config": {"max-size": "1m"}}, "VolumeDriver": "foo"}
    made(engine, "asked", HostConfig=host)
    shown = engine.ok("GET", "/containers/asked/json")
    assert shown["HostConfig"]["Runtime"] == "runc" and shown["Runtime"] == "container"
    assert shown["HostConfig"]["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "1m"}}
    assert shown["HostConfig"]["VolumeDriver"] == "foo"
    engine.ok("POST", "/networks/create", {"Name": "withmac"})
    mac = {"Container": "asked", "EndpointConfig": {"MacAddress": "02:42:ac:11:00:02"}}
    engine.ok("POST", "/networks/withmac/connect", mac)
    ends = engine.ok("GET", "/containers/asked/json")["NetworkSettings"]["Networks"]
    assert ends["withmac"]["MacAddress"] == "02:42:ac:11:00:02"


@pytest.mark.parametrize(
    ("more", "status", "words"),
    [
        ({"LogConfig": {"Type": "none-such"}}, 400, "no log driver named 'none-such'"),
        ({"LogConfig": {"Type": "syslog"}}, 501, "logging driver 'syslog' is not supported"),
        ({"VolumeDriver": "foo", "Binds": ["vol:/data"]}, 501, "volume driver 'foo'"),
    ],
)
def test_refused_in_words(
    engine: EngineProcess, more: dict[str, object], status: int, words: str
) -> None:
    body = {"Image": IMAGE, "Cmd": ["true"], "HostConfig": more}
    answer = engine.call("POST", "/containers/create", body)
    assert answer[0] == status and words in answer[1]["message"]


def test_a_bind_that_should_be_shared_is_warned_of(engine: EngineProcess) -> None:
    body = {"Image": IMAGE, "Cmd": ["true"], "HostConfig": {"Binds": ["/tmp:/t:rshared"]}}
    warnings = engine.ok("POST", "/containers/create", body)["Warnings"]
    assert any("binds are private" in text for text in warnings)


def test_an_archive_that_is_none_fails_in_the_stream(engine: EngineProcess) -> None:
    status, answer = engine.call("POST", "/images/load", b"abc")
    assert status == 200 and "errorDetail" in answer
    assert "archive" in json.dumps(answer)


@pytest.mark.parametrize(("user", "password"), [("a", ""), ("", "b"), ("", "")])
def test_half_of_credentials(engine: EngineProcess, user: str, password: str) -> None:
    body = {"username": user, "password": password, "serveraddress": "localhost:1"}
    status, answer = engine.call("POST", "/auth", body)
    assert status == 400 and "missing" in answer["message"]


def test_what_the_machine_lacks_is_refused_with_a_status(engine: EngineProcess) -> None:
    made(engine, "limited")
    engine.ok("POST", "/containers/limited/start")
    for body in ({"CpusetMems": "4242"}, {"CpusetCpus": "a"}, {"CpusetCpus": "0-99999"}):
        assert engine.call("POST", "/containers/limited/update", body)[0] == 400
    engine.ok("POST", "/containers/limited/update", {"CpusetCpus": "0"})


def test_an_image_for_another_machine(engine: EngineProcess) -> None:
    body = {"Image": IMAGE, "Cmd": ["true"]}
    status, answer = engine.call("POST", "/containers/create?platform=linux/riscv64", body)
    assert status == 404 and "does not match the specified platform" in answer["message"]
    where = "/images/create?fromSrc=-&repo=foreign&platform=linux/riscv64"
    assert engine.call("POST", where, b"")[0] == 501
