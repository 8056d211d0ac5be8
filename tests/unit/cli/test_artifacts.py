"""Compose files from registries on the client's side: fetched once, checked, kept."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, cast

import pytest

from gemel.client.engine import Client
from gemel.client.project.artifacts import Artifacts, send
from gemel.compose.artifact import FILE, Layer, Packed, digest_of, pack
from gemel.errors import Failed, GemelError, InvalidInput, NotFound, Unavailable, Unsupported

TEXT = b"services: {a: {image: x}}\n"


def packed(text: bytes = TEXT) -> Packed:
    layers = (Layer(FILE, "compose.yaml", text),)
    return pack(layers, version="1.1", created="2026-01-02T03:04:05Z", by="2.40.3")


def answer(one: Packed, **changes: Any) -> dict[str, Any]:
    """What the engine says of an artifact."""
    blobs = {digest_of(blob): base64.b64encode(blob).decode() for blob in one.blobs}
    told = {
        "Digest": one.digest,
        "Manifest": base64.b64encode(one.manifest).decode(),
        "Index": "",
        "Blobs": blobs,
    }
    return {**told, **changes}


class Engine:
    """Answers what it is told to, and remembers what it was asked."""

    def __init__(self, *answers: dict[str, Any] | GemelError) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str]] = []
        self.bodies: list[Any] = []

    def call(self, method: str, path: str, body: Any = None, **_: Any) -> Engine:
        self.asked.append((method, path))
        self.bodies.append(body)
        self.next = self.answers.pop(0)
        if isinstance(self.next, GemelError):
            raise self.next
        return self

    def read(self) -> bytes:
        return json.dumps(self.next).encode()


@pytest.fixture
def cache(tmp_path: Path) -> dict[str, str]:
    return {"XDG_CACHE_HOME": str(tmp_path / "cache")}


def artifacts(cache: dict[str, str], *answers: dict[str, Any] | GemelError) -> Artifacts:
    engine = Engine(*answers)
    made = Artifacts(lambda: cast(Client, engine), cache)
    made.engine = engine  # type: ignore[attr-defined]
    return made


def test_it_is_fetched_once_and_then_known_by_its_digest(cache: dict[str, str]) -> None:
    one = packed()
    first = artifacts(cache, answer(one))
    path = Path(first("oci://r.example/app:1"))
    assert path.read_bytes() == TEXT
    assert path.parent.name == one.digest[7:]
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert first("oci://r.example/app:1") == str(path)
    assert first.references == ["oci://r.example/app:1"]
    # no engine is needed for what is here
    again = artifacts(cache)
    assert again(f"oci://r.example/app@{one.digest}") == str(path)
    assert again(f"oci://r.example/app:1@{one.digest}") == str(path)
    # a tag may stand for something else by now
    other = packed(b"services: {b: {image: y}}\n")
    assert Path(artifacts(cache, answer(other))("oci://r.example/app:1")).parent != path.parent


def test_what_was_changed_in_the_folder_is_put_right(cache: dict[str, str]) -> None:
    one = packed()
    path = Path(artifacts(cache, answer(one))("oci://r/a"))
    path.write_bytes(b"services: {evil: {image: x}}\n")
    (path.parent / "data").mkdir()  # of a mount with a relative path
    assert Path(artifacts(cache)(f"oci://r/a@{one.digest}")).read_bytes() == TEXT
    assert (path.parent / "data").is_dir()


@pytest.mark.parametrize("damage", [b"", b"{}", b"[", b"\xff", None])
def test_what_was_kept_and_is_damaged_is_fetched_anew(
    cache: dict[str, str], damage: bytes | None
) -> None:
    one = packed()
    path = Path(artifacts(cache, answer(one))("oci://r/a"))
    kept = Path(f"{path.parent}.json")
    if damage is None:
        blobs = {digest_of(TEXT): base64.b64encode(b"services: {}").decode()}
        damage = json.dumps(answer(one, Blobs=blobs)).encode()
    kept.write_bytes(damage)
    again = artifacts(cache, answer(one))
    assert Path(again(f"oci://r/a@{one.digest}")).read_bytes() == TEXT
    assert len(again.engine.asked) == 1  # type: ignore[attr-defined]


def test_what_is_not_what_was_asked_for_is_refused(cache: dict[str, str]) -> None:
    one, other = packed(), packed(b"services: {b: {image: y}}\n")
    for told in (
        answer(other),
        answer(one, Manifest=base64.b64encode(other.manifest).decode()),
        answer(one, Blobs={digest_of(TEXT): "eHg="}),
        answer(one, Manifest="?"),
    ):
        with pytest.raises(InvalidInput, match="cannot read oci://r/a@sha256"):
            artifacts(cache, told)(f"oci://r/a@{one.digest}")
    with pytest.raises(Failed, match="not understood"):
        artifacts(cache, {"Digest": 1})("oci://r/a")
    assert not list(Path(cache["XDG_CACHE_HOME"]).rglob("compose.yaml"))


def test_errors_name_the_reference_and_what_can_be_done(cache: dict[str, str]) -> None:
    one = packed()
    with pytest.raises(NotFound, match=r"cannot read oci://r/a:1: manifest unknown") as caught:
        artifacts(cache, NotFound("manifest unknown", "", "look there"))("oci://r/a:1")
    assert caught.value.resolution == "look there"
    down = Unavailable("cannot reach the registry r", "refused", "bootstrap an image")
    with pytest.raises(Unavailable, match=r"cannot read oci://r/a:1") as unreached:
        artifacts(cache, down)("oci://r/a:1")
    assert unreached.value.resolution == "check the network and the name"
    artifacts(cache, answer(one))("oci://r/a:1")
    with pytest.raises(Unavailable) as known:
        artifacts(cache, down)("oci://r/a:1")
    assert f"oci://r/a:1@{one.digest}" in known.value.resolution


def test_it_can_be_switched_off_and_has_a_bound(cache: dict[str, str]) -> None:
    off = {**cache, "COMPOSE_EXPERIMENTAL_OCI_REMOTE": "false"}
    with pytest.raises(Unsupported, match="disabled"):
        artifacts(off)("oci://r/a")
    many = artifacts(cache, *(answer(packed()) for _ in range(64)))
    for number in range(64):
        many(f"oci://r/a{number}")
    with pytest.raises(InvalidInput, match="more than 64 artifacts"):
        many("oci://r/more")


def test_a_cache_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Failed, match="cannot be kept") as caught:
        artifacts({"XDG_CACHE_HOME": str(tmp_path / "file")}, answer(packed()))("oci://r/a")
    assert "XDG_CACHE_HOME" in caught.value.resolution


def test_a_registry_that_knows_no_types_of_artifacts_gets_an_older_one() -> None:
    layers = (Layer(FILE, "compose.yaml", TEXT),)
    engine = Engine(Unsupported("takes none"), {"Digest": "sha256:1", "Size": 3})
    sent = send(cast(Client, engine), "r/a:1", layers)
    assert sent.version == "1.0" and sent.digest == "sha256:1"
    first, second = (json.loads(base64.b64decode(b["Manifest"])) for b in engine.bodies)
    assert "artifactType" in first and "artifactType" not in second
    assert engine.asked == [("POST", "/gemel/artifacts/r/a:1")] * 2
    with pytest.raises(Unsupported):
        send(cast(Client, Engine(Unsupported("takes none"))), "r/a:1", layers, "1.1")
    with pytest.raises(Failed):
        send(cast(Client, Engine(Failed("no"))), "r/a:1", layers)
