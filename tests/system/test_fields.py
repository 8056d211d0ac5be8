"""What clients still send: warned of in the answer, or carried out, against a real engine."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.engine import IMAGE, EngineProcess

pytestmark = pytest.mark.root


def create(engine: EngineProcess, name: str, host: dict[str, Any], **more: Any) -> dict[str, Any]:
    body = {"Image": IMAGE, "Cmd": ["sleep", "1000"], "HostConfig": host, **more}
    made = engine.ok("POST", f"/containers/create?name={name}", body)
    assert isinstance(made, dict)
    return made


def test_warnings_and_old_fields(engine: EngineProcess) -> None:
    made = create(
        engine, "warned",
        {"BlkioWeight": 300, "StorageOpt": {"size": "1G"}, "MemorySwappiness": -1, "Init": True,
         "MaskedPaths": [], "ReadonlyPaths": [], "CpusetMems": "0"},
    )  # fmt: skip
    assert made["Warnings"] == [
        "BlkioWeight has no effect: block I/O is not limited",
        "StorageOpt has no effect: a writable layer has no limit",
    ]
    engine.gemel("start", "warned")
    done = engine.gemel("exec", "warned", "sh", "-c", "mount | grep -c ' /proc/k'", check=False)
    assert done.stdout.strip() == "0", "docker's systempaths=unconfined comes as empty MaskedPaths"
    answer = engine.ok("POST", "/containers/warned/update", {"BlkioWeight": 9, "CpusetCpus": "0"})
    assert answer["Warnings"] == ["BlkioWeight has no effect: block I/O is not limited"]
    engine.gemel("rm", "-f", "warned")


def test_links_of_an_endpoint(engine: EngineProcess) -> None:
    """docker-compose 1 sends links so."""
    engine.ok("POST", "/networks/create", {"Name": "linked"})
    for name, links in (("first", None), ("second", ["first:alias", "nothing:other"])):
        config = {"EndpointsConfig": {"linked": {"Links": links}}}
        create(engine, name, {"NetworkMode": "linked", "Init": True}, NetworkingConfig=config)
        engine.gemel("start", name)
    hosts = engine.gemel("exec", "second", "cat", "/etc/hosts").stdout
    [first] = json.loads(engine.gemel("inspect", "first").stdout)
    address = first["NetworkSettings"]["Networks"]["linked"]["IPAddress"]
    assert any(line.split() == [address, "alias"] for line in hosts.splitlines()), hosts
    engine.gemel("rm", "-f", "first", "second")
    engine.gemel("network", "rm", "linked")


@pytest.mark.parametrize("runtime", ["container", "microvm"])
def test_archives_as_a_user_and_over_folders(
    engine: EngineProcess, runtime: str, tmp_path: Path
) -> None:
    name = f"put-{runtime}"
    create(engine, name, {"Runtime": runtime, "Init": True}, User="app")
    engine.gemel("start", name)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, kind, data in (("there", tarfile.REGTYPE, b"new"), ("f", tarfile.DIRTYPE, b"")):
            entry = tarfile.TarInfo(path)
            entry.type, entry.size, entry.mode = kind, len(data), 0o755
            tar.addfile(entry, io.BytesIO(data))
    engine.gemel("exec", "-u", "0", name, "sh", "-c", "mkdir -p /tmp/x/there/in; echo > /tmp/x/f")
    path = f"/containers/{name}/archive?path=/tmp/x"
    status, answer = engine.call("PUT", f"{path}&noOverwriteDirNonDir=1", out.getvalue())
    assert status >= 400, answer
    if runtime == "microvm":
        engine.gemel("exec", "-u", "0", name, "rm", "-r", "/tmp/x/there", "/tmp/x/f")
    engine.ok("PUT", f"{path}&copyUIDGID=1", out.getvalue())
    script = "stat -c '%U %F' /tmp/x/there /tmp/x/f; cat /tmp/x/there"
    assert engine.gemel("exec", name, "sh", "-c", script).stdout.splitlines() == [
        "app regular file",
        "app directory",
        "new",
    ]
    engine.gemel("rm", "-f", name)


def test_what_is_ipv6_is_said_to_be_not_there(engine: EngineProcess, tmp_path: Path) -> None:
    """Nothing is half of it: ports of IPv6 are refused, [::] is warned of; networks of IPv6 are
    refused through the API, and IPv4's with a warning from a Compose file.
    """
    for body in ({"EnableIPv6": True}, {"IPAM": {"Config": [{"Subnet": "fd00::/64"}]}}):
        status, answer = engine.call("POST", "/networks/create", {"Name": "six", **body})
        assert status == 501 and "IPv" in answer["message"], answer
    every = {"PortBindings": {"80/tcp": [{"HostIp": "::", "HostPort": ""}]}}
    assert "IPv4 addresses alone" in create(engine, "six", every)["Warnings"][0]
    engine.gemel("rm", "six")
    body = {
        "Image": IMAGE,
        "Cmd": ["true"],
        "HostConfig": {"PortBindings": {"80/tcp": [{"HostIp": "::1"}]}},
    }
    status, answer = engine.call("POST", "/containers/create", body)
    assert status == 501 and "cannot publish on ::1" in answer["message"], answer
    text = (
        f"services:\n  a:\n    image: {IMAGE}\n    command: 'true'\n    ports: ['[::1]:8080:80']\n"
        "    networks: {n: {ipv6_address: 'fd01::5'}}\nnetworks:\n  n:\n    enable_ipv6: true\n"
        "    ipam: {config: [{subnet: 'fd01::/64'}, {subnet: 10.99.7.0/24}]}\n"
    )
    (tmp_path / "compose.yaml").write_text(text)
    done = engine.gemel("up", "-d", cwd=tmp_path, check=False)
    assert done.returncode == 1 and "compose.yaml:5:" in done.stderr, done.stderr
    assert "host_ip is refused" in done.stderr, done.stderr
    (tmp_path / "compose.yaml").write_text(text.replace("[::1]:", ""))
    told = engine.gemel("-p", "six", "up", "-d", cwd=tmp_path).stderr
    assert "compose.yaml:9:5: networks.n.enable_ipv6 is ignored: networks are IPv4" in told, told
    assert "compose.yaml:10:" in told and "config[0].subnet is ignored" in told, told
    assert "services.a.networks.n.ipv6_address is ignored" in told, told
    ipam = engine.ok("GET", "/networks/six_n")["IPAM"]["Config"]
    assert [pool["Subnet"] for pool in ipam] == ["10.99.7.0/24"]
    engine.gemel("-p", "six", "down", cwd=tmp_path)
