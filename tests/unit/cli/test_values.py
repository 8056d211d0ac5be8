"""Options in Docker's spelling, and the request that run makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest

from gemel.cli import values
from gemel.cli.commands.run import run
from gemel.cli.request import create_request
from gemel.errors import InvalidInput


@pytest.mark.parametrize(
    ("spec", "inner", "ip", "host"),
    [
        ("8080:80", "80/tcp", "", "8080"),
        ("127.0.0.1:8080:80", "80/tcp", "127.0.0.1", "8080"),
        ("80", "80/tcp", "", ""),
        ("53:53/udp", "53/udp", "", "53"),
        ("[::1]:80:80", "80/tcp", "::1", "80"),
        ("127.0.0.1::80", "80/tcp", "127.0.0.1", ""),
        ("8000-8010:80", "80/tcp", "", "8000-8010"),
    ],
)
def test_ports(spec: str, inner: str, ip: str, host: str) -> None:
    exposed, bindings = values.published([spec])
    assert exposed == {inner: {}}
    assert bindings == {inner: [{"HostIp": ip, "HostPort": host}]}


def test_ranges_of_ports_go_pairwise() -> None:
    _, bindings = values.published(["8000-8001:80-81"])
    assert {k: v[0]["HostPort"] for k, v in bindings.items()} == {
        "80/tcp": "8000",
        "81/tcp": "8001",
    }


@pytest.mark.parametrize("spec", ["", "a:80", "80:99999", "1-2:1-3", "0:0", "80/icmp"])
def test_no_ports(spec: str) -> None:
    with pytest.raises(InvalidInput):
        values.published([spec])


def test_environment_comes_from_files_options_and_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FROM_HERE", "yes")
    monkeypatch.delenv("NOT_HERE", raising=False)
    file = tmp_path / "env"
    file.write_text("# no\nA=1\nB=x=y\n\nFROM_HERE\n")
    made = values.environment(["A=2", "NOT_HERE"], [str(file)])
    assert made == ["A=2", "B=x=y", "FROM_HERE=yes"]
    with pytest.raises(InvalidInput):
        values.environment(["=1"], [])
    with pytest.raises(InvalidInput, match="cannot read"):
        values.environment([], [str(tmp_path / "none")])


def test_mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert values.mount("type=bind,src=data,dst=/d,ro") == {
        "Type": "bind", "Source": str(tmp_path / "data"), "Target": "/d", "ReadOnly": True,
    }  # fmt: skip
    assert values.bind("./data:/d:ro") == (f"{tmp_path}/data:/d:ro", "")
    assert values.bind("name:/d") == ("name:/d", "")
    assert values.bind("/d") == ("", "/d")
    for bad in ("type=bind,src=/a", "target=/d,colour=red"):
        with pytest.raises(InvalidInput):
            values.mount(bad)


def parsed(*arguments: str) -> dict[str, Any]:
    """The options of ``gemel run`` as the command gets them."""
    assert isinstance(run, click.Command)
    context = run.make_context("run", list(arguments))
    return context.params


def request(*arguments: str) -> dict[str, Any]:
    """The create call's body for a command line."""
    options = parsed(*arguments)
    return create_request(options, options["what"], options["argv"])


def test_a_plain_run_asks_for_little() -> None:
    body = request("busybox", "echo", "-n", "hi")
    assert body["Image"] == "busybox"
    assert body["Cmd"] == ["echo", "-n", "hi"]
    assert body["AttachStdout"] is True
    assert body["HostConfig"] == {}
    assert "Entrypoint" not in body
    assert "NetworkingConfig" not in body


def test_options_end_at_the_image() -> None:
    assert request("--rm", "busybox", "ls", "--rm", "-it")["Cmd"] == ["ls", "--rm", "-it"]


def test_a_full_run() -> None:
    body = request(
        "--rm", "-i", "-t", "--runtime", "microvm", "-e", "A=1", "-p", "80:80", "-m", "512m",
        "--cpus", "1.5", "--network", "back", "--network-alias", "db", "--cap-drop", "ALL",
        "--tmpfs", "/run:size=64m", "--ulimit", "nofile=1024:2048", "--read-only", "--init",
        "--entrypoint", "sh", "--health-cmd", "true", "--health-interval", "1m30s",
        "-l", "a=b", "-u", "1000:1000", "-w", "/srv", "-h", "box", "img", "-c", "id",
    )  # fmt: skip
    host = body["HostConfig"]
    assert host["Runtime"] == "microvm"
    assert host["AutoRemove"] is True
    assert host["Memory"] == 512 << 20
    assert host["NanoCpus"] == 1_500_000_000
    assert host["NetworkMode"] == "back"
    assert host["CapDrop"] == ["ALL"]
    assert host["Tmpfs"] == {"/run": "size=64m"}
    assert host["Ulimits"] == [{"Name": "nofile", "Soft": 1024, "Hard": 2048}]
    assert host["ReadonlyRootfs"] is True
    assert host["Init"] is True
    assert body["Entrypoint"] == ["sh"]
    assert body["Cmd"] == ["-c", "id"]
    assert body["Healthcheck"] == {"Test": ["CMD-SHELL", "true"], "Interval": 90_000_000_000}
    assert body["NetworkingConfig"] == {"EndpointsConfig": {"back": {"Aliases": ["db"]}}}
    assert (body["Tty"], body["OpenStdin"], body["StdinOnce"]) == (True, True, True)
    assert (body["User"], body["WorkingDir"], body["Hostname"]) == ("1000:1000", "/srv", "box")


def test_contradictions_are_refused() -> None:
    with pytest.raises(InvalidInput, match="--rm and --restart"):
        request("--rm", "--restart", "always", "busybox")
    with pytest.raises(InvalidInput, match="no restart policy"):
        request("--restart", "sometimes", "busybox")


def test_a_detached_run_is_not_attached() -> None:
    body = request("-d", "-i", "busybox")
    assert body["AttachStdin"] is False
    assert body["OpenStdin"] is True
    assert body["StdinOnce"] is False
