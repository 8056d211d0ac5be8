"""Compose files as an OCI artifact: what is packed, and what is believed of one that comes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemel.compose import artifact
from gemel.compose.artifact import ENV_FILE, FILE, Layer, digest_of, pack, unpack, verify
from gemel.errors import GemelError, InvalidInput

LAYERS = (
    Layer(FILE, "compose.yaml", b"services: {a: {image: x}}\n"),
    Layer(FILE, "override.yml", b"services: {a: {image: y}}\n"),
    Layer(FILE, "0123.yaml", b"services: {b: {image: z}}\n", extends=True),
    Layer(ENV_FILE, "4567.env", b"A=1\n"),
)


def packed(layers: tuple[Layer, ...] = LAYERS, version: str = "1.1") -> artifact.Packed:
    return pack(layers, version=version, created="2026-01-02T03:04:05Z", by="2.40.3")


def blobs_of(one: artifact.Packed) -> dict[str, bytes]:
    return {digest_of(blob): blob for blob in one.blobs}


@pytest.mark.parametrize("version", artifact.VERSIONS)
def test_what_is_packed_is_unpacked(version: str) -> None:
    one = packed(version=version)
    assert unpack(one.manifest, blobs_of(one)) == {
        "compose.yaml": LAYERS[0].data + b"\n---\n" + LAYERS[1].data,
        "0123.yaml": LAYERS[2].data,
        "4567.env": LAYERS[3].data,
    }
    manifest = json.loads(one.manifest)
    assert manifest.get("artifactType") == (artifact.PROJECT if version == "1.1" else None)
    config = manifest["config"]["mediaType"]
    assert (
        config == {"1.1": "application/vnd.oci.empty.v1+json", "1.0": artifact.OLD_CONFIG}[version]
    )
    assert manifest["layers"][2]["annotations"] == {
        "com.docker.compose.file": "0123.yaml",
        "com.docker.compose.version": "2.40.3",
        "com.docker.compose.extends": "true",
    }
    assert manifest["layers"][3]["mediaType"] == "application/vnd.docker.compose.envfile"
    assert manifest["layers"][3]["annotations"]["com.docker.compose.envfile"] == "4567.env"
    # every descriptor names something that is sent, of its size
    for about in (manifest["config"], *manifest["layers"]):
        assert len(blobs_of(one)[about["digest"]]) == about["size"]


def changed(**layer: Any) -> tuple[bytes, dict[str, bytes]]:
    """An artifact whose last layer is described otherwise."""
    one = packed()
    manifest = json.loads(one.manifest)
    about = layer.pop("annotations", {})
    manifest["layers"][-1] |= layer
    manifest["layers"][-1]["annotations"] |= about
    return json.dumps(manifest).encode(), blobs_of(one)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../up.env", "/etc/passwd", "a/b", "a\\b", "a\0b", "a\nb", "é" * 101]
)
def test_no_file_lies_outside_of_the_folder(name: str) -> None:
    with pytest.raises(InvalidInput, match="outside of its folder"):
        unpack(*changed(annotations={"com.docker.compose.envfile": name}))
    about = {"com.docker.compose.extends": "true", "com.docker.compose.file": name}
    with pytest.raises(InvalidInput, match="outside of its folder"):
        unpack(*changed(mediaType=FILE, annotations=about))


def test_no_file_takes_the_place_of_another() -> None:
    with pytest.raises(InvalidInput, match=r"two of its files have the name compose\.yaml"):
        unpack(*changed(annotations={"com.docker.compose.envfile": "compose.yaml"}))
    env = (LAYERS[3], Layer(FILE, "4567.env", b"services: {}", extends=True), LAYERS[0])
    with pytest.raises(InvalidInput, match=r"two of its files have the name 4567\.env"):
        one = packed(env)
        unpack(one.manifest, blobs_of(one))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"artifactType": "application/x"}, "not a Compose project"),
        ({"artifactType": ""}, "not a Compose project"),
        ({"layers": []}, "holds no Compose file"),
        ({"layers": 7}, "damaged"),
    ],
)
def test_what_is_no_compose_project_is_refused(change: dict[str, Any], words: str) -> None:
    one = packed()
    manifest = {**json.loads(one.manifest), **change}
    with pytest.raises(InvalidInput, match=words):
        unpack(json.dumps(manifest).encode(), blobs_of(one))
    with pytest.raises(InvalidInput, match="is missing"):
        unpack(one.manifest, {})
    with pytest.raises(InvalidInput, match="damaged"):
        unpack(b"{", {})


def test_layers_of_other_kinds_are_passed_over() -> None:
    assert "4567.env" not in unpack(*changed(mediaType="application/other"))


def test_only_what_the_digest_stands_for_is_believed() -> None:
    one = packed()
    verify(one.digest, one.manifest, b"", blobs_of(one))
    with pytest.raises(InvalidInput):
        verify(one.digest, one.manifest + b" ", b"", blobs_of(one))
    with pytest.raises(InvalidInput):
        verify(one.digest, one.manifest, b"", {digest_of(b"a"): b"b"})
    index = json.dumps({"manifests": [{"digest": one.digest}]}).encode()
    verify(digest_of(index), one.manifest, index, blobs_of(one))
    with pytest.raises(InvalidInput, match="does not name"):
        verify(digest_of(b"{}"), one.manifest, b"{}", blobs_of(one))


def test_an_artifact_has_a_bound() -> None:
    with pytest.raises(InvalidInput, match="larger than 4 MiB"):
        packed((Layer(FILE, "compose.yaml", bytes(artifact.LARGEST + 1)),))
    with pytest.raises(InvalidInput, match="unsupported OCI version"):
        packed(version="2")


@pytest.mark.parametrize("text", ["oci://", "oci://a b", "oci://oci://a", "oci://a\n"])
def test_what_names_no_artifact(text: str) -> None:
    with pytest.raises(InvalidInput, match="names no artifact"):
        artifact.reference_of(text)


def test_the_digest_in_a_reference() -> None:
    digest = "sha256:" + "a1" * 32
    assert artifact.digest_in(f"host:5000/a/b:tag@{digest}") == digest
    for text in ("a/b:tag", "a@sha256:12", f"a@{digest[:-1]}G", f"a@{digest[:-2]}/.", "a@md5:1"):
        assert artifact.digest_in(text) == ""


@given(
    st.dictionaries(st.text(max_size=20), st.text(max_size=20), max_size=4),
    st.sampled_from([FILE, ENV_FILE, "x"]),
)
def test_whatever_is_annotated_only_plain_names_come_out(about: dict[str, str], kind: str) -> None:
    keys = ("com.docker.compose.file", "com.docker.compose.envfile", "com.docker.compose.extends")
    mixed = {**about, **dict(zip(keys, about.values(), strict=False))}
    try:
        names = unpack(*changed(mediaType=kind, annotations=mixed))
    except GemelError:
        return
    assert all("/" not in name and name not in ("", ".", "..") for name in names)
