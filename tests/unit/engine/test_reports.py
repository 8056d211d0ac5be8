"""Crash reports: what is otherwise, what is masked, how much is kept."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from gemel.engine.records import Container, MountPoint
from gemel.engine.reporting import good, shelf
from gemel.engine.reporting.shelf import Shelf
from gemel.errors import NotFound
from gemel.model.docker import CreateRequest, HostConfig
from gemel.model.instance import RuntimeName


def container(image: str = "a", memory: int = 0, env: tuple[str, ...] = ()) -> Container:
    return Container(
        id="1" * 64,
        name="shop-api-1",
        created="",
        request=CreateRequest(env=list(env), host_config=HostConfig(memory=memory)),
        image_id=f"sha256:{image * 64}",
        image_ref="shop/api",
        runtime=RuntimeName.CONTAINER,
        argv=["serve"],
        mounts=[MountPoint(kind="volume", name="data", target="/data")],
    )


def test_what_is_otherwise() -> None:
    before = good.facts(container("a", 128 << 20, ("A=1", "B=2", "OLD=x")), 0)
    now = good.facts(container("b", 64 << 20, ("A=1", "B=3", "NEW=x")), 0)
    assert good.differences(before, now) == [
        "image: shop/api (aaaaaaaaaaaa) → shop/api (bbbbbbbbbbbb)",
        "memory limit: 128 MiB → 64 MiB",
        "variable OLD is gone",
        "variable NEW is new",
        "variable B has another value",
    ]
    assert good.differences(before, before) == []
    assert len(before.env["B"]) == 16  # a digest, not the value


def test_secrets_are_masked() -> None:
    shown = good.masked(container(env=("DB_PASSWORD=hush", "COLOUR=blue", "TOKEN=t")))
    assert shown == ["DB_PASSWORD=***", "COLOUR=blue", "TOKEN=***"]
    for text, masked in (
        ("login with token=abc and go", "login with token=*** and go"),
        ('{"api_key": "abc", "n": 1}', '{"api_key": "***", "n": 1}'),
        ("PASSWORD: abc", "PASSWORD: ***"),
        ("postgres://app:abc@db:5432/x", "postgres://app:***@db:5432/x"),
        ("nothing to hide: here", "nothing to hide: here"),
    ):
        assert good.text(text) == masked


def test_the_oldest_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Shelf(tmp_path / "reports")
    monkeypatch.setattr(shelf, "MOST", 3)
    for n in range(5):
        kept.put(f"{n:013d}-{'a' * 12}", {"Id": n, "Name": "x"}, {"log.txt": b"words"})
    assert [one["Id"] for one in kept.all()] == [4, 3, 2]
    monkeypatch.setattr(shelf, "MOST_BYTES", 1000)
    kept.put(f"{9:013d}-{'a' * 12}", {"Id": 9}, {"log.txt": b"x" * 1400})
    assert [one["Id"] for one in kept.all()] == [9]
    with kept.packed(f"{9:013d}-{'a' * 12}") as file, zipfile.ZipFile(file) as archive:
        assert sorted(Path(name).name for name in archive.namelist()) == ["log.txt", "report.json"]
    for wrong in ("../../etc", "", "9"):
        with pytest.raises(NotFound):
            kept.packed(wrong)
