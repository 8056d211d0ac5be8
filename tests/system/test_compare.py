"""A service compared both ways for real, and `runtime: auto` with what follows from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.engine import IMAGE, EngineProcess

pytestmark = pytest.mark.root
HTTPD = ("httpd", "-f", "-p", "8080", "-h", "/etc")


def compare(engine: EngineProcess, *options: str) -> dict[str, Any]:
    done = engine.gemel(
        "compare", IMAGE, "--url", "http://:8080/passwd", "-n", "1", "-s", "1", "-c", "2",
        "--format", "json", *options, "--", *HTTPD, timeout=400,
    )  # fmt: skip
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.fixture(scope="module")
def report(engine: EngineProcess) -> dict[str, Any]:
    return compare(engine, "--html", str(engine.base / "report.html"))


def test_both_ways_are_measured(report: dict[str, Any]) -> None:
    starts = {v["Name"]: v for v in report["Variants"]}
    assert {name: len(v["Start"]) for name, v in starts.items()} == {
        "container": 1,
        "microvm cold": 1,
        "microvm cloned": 1,
    }, starts
    assert starts["microvm cloned"]["Booted"] == ["cloned"]
    assert starts["microvm cold"]["Booted"] == ["cold"]
    loads = {o["Runtime"]: o for o in report["Load"]}
    for load in loads.values():
        assert load["RequestsPerSecond"][0] > 0
        assert 0 < load["P50"][0] <= load["P99"][0]
        assert load["CpuPerRequest"][0] > 0
        assert not load["Errors"]
    use = {o["Runtime"]: o for o in report["Use"]}
    # a VM's cost has its kernel in it
    assert use["microvm"]["MemoryRest"][0] > use["container"]["MemoryRest"][0] > 0
    assert report["Advice"]["Reasons"]


def test_isolation_is_seen_from_inside(report: dict[str, Any]) -> None:
    seen = {one["Runtime"]: one for one in report["Isolation"]}
    assert not any(one["Failure"] for one in seen.values()), seen
    assert seen["container"]["SharesKernel"] and not seen["microvm"]["SharesKernel"]
    assert seen["container"]["Seccomp"]
    assert seen["container"]["Kernel"] != seen["microvm"]["Kernel"]
    assert "its memory" in seen["container"]["HostFacts"]
    assert seen["microvm"]["HostFacts"] == []
    assert "bpf" not in seen["container"]["Reaches"]
    assert "sys_admin" not in seen["container"]["Capabilities"]


def test_nothing_stays_and_the_report_does(engine: EngineProcess, report: dict[str, Any]) -> None:
    assert engine.ok("GET", "/containers/json?all=1") == []
    page = (engine.base / "report.html").read_text()
    assert "<svg" in page and "http" not in page.split("<body>")[0]
    again = engine.gemel("compare", IMAGE, "--last", "--format", "json").stdout
    assert json.loads(again) == report
    text = engine.gemel("compare", "--last").stdout
    assert "recommended:" in text and "seen from inside" in text


def test_what_cannot_be_compared(engine: EngineProcess) -> None:
    for options, words in (
        ((IMAGE, "--", *HTTPD), "on which port"),
        ((IMAGE, "--port", "8080", "-n", "99", "--", *HTTPD), "rounds"),
        ((IMAGE, "--port", "8080", "-c", "x", "--", *HTTPD), "list of numbers"),
        ((IMAGE, "--port", "8080", "--", "false"), "neither as a container nor"),
        ((IMAGE, "--port", "8080", "--", *HTTPD), "404"),
        (("no/such",), "o such image"),
    ):
        done = engine.gemel("compare", *options, check=False)
        assert done.returncode != 0
        assert words in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
    assert engine.ok("GET", "/containers/json?all=1") == []


@pytest.fixture
def project(engine: EngineProcess, tmp_path: Path) -> Path:
    (tmp_path / "compose.yaml").write_text(
        f"name: chosen\nservices:\n"
        f"  plain: {{image: {IMAGE}, command: sleep 1000, runtime: auto}}\n"
        f"  strong: {{image: {IMAGE}, command: sleep 1000, runtime: auto,\n"
        f"           x-gemel: {{isolation: strong}}}}\n"
        f"  fixed: {{image: {IMAGE}, command: sleep 1000}}\n"
        f"  stores: {{image: {IMAGE}, command: sleep 1000, runtime: auto, profiles: [more],\n"
        f"           volumes: [disk:/data]}}\n"
        f"volumes: {{disk: {{driver_opts: {{type: block}}}}}}\n"
    )
    return tmp_path


def test_auto_chooses_and_explains(engine: EngineProcess, project: Path) -> None:
    before = engine.gemel("explain", "plain", cwd=project).stdout
    assert "plain would be a container" in before
    try:
        engine.gemel("up", "-d", "--quiet-pull", cwd=project)
        rows = [
            json.loads(line)
            for line in engine.gemel("ps", "--format", "json", cwd=project).stdout.splitlines()
        ]
        assert {row["Service"]: row["RuntimeShown"] for row in rows} == {
            "plain": "container (auto)",
            "strong": "microvm (auto)",
            "fixed": "container",
        }
        told = engine.gemel("explain", "strong", cwd=project).stdout
        assert "is a micro VM: x-gemel.isolation is strong" in told
        assert "→ isolation asked for" in told
        assert (
            "the file or the command line says so"
            in engine.gemel("explain", "fixed", cwd=project).stdout
        )
        # what was chosen stays: nothing to do
        again = engine.gemel("up", "-d", "--dry-run", cwd=project)
        assert "reat" not in again.stdout, again.stdout
    finally:
        engine.gemel("down", "-t", "0", cwd=project)


def test_auto_knows_block_volumes(engine: EngineProcess, project: Path) -> None:
    told = engine.gemel("explain", "stores", cwd=project).stdout
    assert "stores would be a micro VM: the block volume chosen_disk" in told, told
    try:
        engine.ok("POST", "/volumes/create", {"Name": "disk", "DriverOpts": {"type": "block"}})
        body = {"Image": IMAGE, "Cmd": ["true"]}
        host = {"Runtime": "auto", "Binds": ["disk:/data"]}
        assert engine.ok("POST", "/gemel/choose", {**body, "HostConfig": host})["Runtime"] == (
            "microvm"
        )
        host["Privileged"] = True
        status, answer = engine.call("POST", "/containers/create", {**body, "HostConfig": host})
        assert status == 400 and "block volume disk" in answer["message"], answer
    finally:
        engine.ok("DELETE", "/volumes/disk")


def test_isolation_that_cannot_be_had_is_refused(engine: EngineProcess) -> None:
    body = {
        "Image": IMAGE,
        "Cmd": ["true"],
        "Labels": {"gemel.isolation": "strong"},
        "HostConfig": {"Runtime": "auto", "Privileged": True},
    }
    status, answer = engine.call("POST", "/containers/create", body)
    assert status == 400
    assert "isolation: strong" in answer["message"], answer
