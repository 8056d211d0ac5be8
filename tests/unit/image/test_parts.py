"""Decompression, blobs, Dockerfiles, options, changes, manifests, apt sources."""

from __future__ import annotations

import base64
import bz2
import gzip
import json
import lzma
import random
from pathlib import Path

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from gemel.errors import InvalidInput, NotFound, Unsupported
from gemel.host.cgrouplimits import Limits
from gemel.image import bootstrap, changes, dockerfile, inputs, manifest, options, remote
from gemel.image.blobs import Blobs, digest_of
from gemel.image.inflate import Inflater

PACKERS = {
    "none": bytes,
    "gzip": gzip.compress,
    "zstd": zstd.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}


def inflate(data: bytes, piece: int, limit: int = 1 << 30) -> bytes:
    inflater = Inflater(limit)
    out = b"".join(
        part for at in range(0, len(data), piece) for part in inflater.feed(data[at : at + piece])
    )
    return out + b"".join(inflater.finish())


@pytest.mark.parametrize("kind", PACKERS)
@given(data=st.binary(max_size=300), piece=st.integers(1, 50), twice=st.booleans())
def test_streams_come_back_in_any_pieces(kind: str, data: bytes, piece: int, twice: bool) -> None:
    data = b"begin" + data  # so that it has no other's magic
    packed = PACKERS[kind](data)
    if twice:
        packed, data = packed * 2, data * 2
    assert inflate(packed, piece) == data


@pytest.mark.parametrize("kind", PACKERS)
def test_much_comes_through_and_bombs_stop(kind: str) -> None:
    data = random.Random(1).randbytes(1 << 20) + bytes(5 << 20) + b"end"
    assert inflate(PACKERS[kind](data), 1 << 16) == data
    with pytest.raises(InvalidInput, match="holds more than 2 MiB"):
        inflate(PACKERS[kind](data), 1 << 16, limit=2 << 20)


@pytest.mark.parametrize("kind", [k for k in PACKERS if k != "none"])
def test_damage_is_seen(kind: str) -> None:
    packed = PACKERS[kind](random.Random(1).randbytes(5000))
    with pytest.raises(InvalidInput):
        inflate(packed[:-20], 100)
    if kind != "zstd":  # which has no check sum unless asked; digests see it then
        broken = bytearray(packed)
        broken[2500] ^= 0xFF
        with pytest.raises(InvalidInput):
            inflate(bytes(broken), 100)


def test_blobs_are_what_they_are_called(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    blobs.prepare()
    good = digest_of(b"data")
    with blobs.writer(good) as writer:
        writer.write(b"da")
        writer.write(b"ta")
        assert writer.commit() == good
    with pytest.raises(InvalidInput, match="not what its digest says"), blobs.writer(good) as bad:
        bad.write(b"else")
        bad.commit()
    assert blobs.read(good) == b"data"
    assert blobs.digests() == {good}
    assert not list(blobs.temporary.iterdir())
    for wrong in ("sha256:../../etc/passwd", "md5:" + "a" * 64, "sha256:" + "A" * 64, ""):
        with pytest.raises(InvalidInput):
            blobs.path(wrong)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FROM a", ["a"]),
        ("from a as x\nFROM x\nFROM X AS y\nfrom b", ["a", "b"]),
        ("FROM --platform=$P a:1 AS x\nCOPY --from=x / /\nCOPY --from=c:2 / /", ["a:1", "c:2"]),
        ("ARG V=3\nARG N=x\nFROM $N:${V}", ["x:4"]),
        ("ARG V\nFROM a:${V:-9}", ["a:4"]),
        ("FROM a:${NONE:-9}", ["a:9"]),
        ("FROM scratch\nCOPY --from=0 / /", []),
        ("# FROM no\n\nFROM \\\n  # a comment within\n  a \\\n  AS b\nRUN echo FROM c", ["a"]),
        ("# escape=`\nFROM `\n a", ["a"]),
        ("FROM a\nRUN --mount=type=bind,from=tools:1,source=/x true", ["a", "tools:1"]),
        ("FROM a\nRUN cat <<EOF\nhello\nEOF", ["a"]),
        ("", []),
    ],
)  # fmt: skip
def test_images_of_a_dockerfile(text: str, expected: list[str]) -> None:
    assert dockerfile.images(text, {"V": "4"}) == expected


def test_options_of_a_build() -> None:
    parsed = options.parse(
        {
            "t": "a:1\nb,localhost:5000/c",
            "buildargs": '{"A": "1", "N": null, "B": "x y"}',
            "labels": '{"l": "v"}',
            "extrahosts": "db:10.0.0.1,web=10.0.0.2",
            "nocache": "1",
            "target": "x",
            "memory": "100000000",
            "cpushares": "0",
            "cgroupparent": "/x",
            "cachefrom": '["a"]',
            "cacheto": "[]",
            "shmsize": "9",
            "ulimits": '[{"Name": "nofile", "Soft": 1, "Hard": 2}]',
            "contexts": '{"x": "docker-image://y"}',
        }
    )
    assert [str(t) for t in parsed.tags] == [
        "docker.io/library/a:1",
        "docker.io/library/b:latest",
        "localhost:5000/c:latest",
    ]
    assert parsed.ignored[0] == "cgroupparent" and parsed.ignored[1].startswith("cachefrom a:")
    assert (parsed.limits, parsed.shm_size) == (Limits(memory=100_000_000), 9)
    words = " ".join(parsed.arguments_of_buildah())
    for part in ("--build-arg A=1", "--build-arg B=x y", "--label l=v", "--add-host db:10.0.0.1",
                 "--add-host web:10.0.0.2", "--no-cache", "--target x", "--ulimit nofile=1:2",
                 "--build-context x=docker-image://y",
                 "--pull=missing"):  # fmt: skip
        assert part in words
    assert "N=" not in words
    sent = dict.fromkeys(("ulimits", "contexts", "cachefrom", "labels", "buildargs"), "null")
    assert options.parse(sent) == options.BuildOptions()  # docker's way to say: not given


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ({"outputs": '[{"type": "local"}]'}, Unsupported),
        ({"memory": "1000"}, InvalidInput),
        ({"memory": "x"}, InvalidInput),
        ({"cpusetcpus": "0-"}, InvalidInput),
        ({"ulimits": '[{"Name": "a=b", "Soft": 1, "Hard": 1}]'}, InvalidInput),
        ({"contexts": '{"a": "/etc"}'}, InvalidInput),
        ({"contexts": '{"a,b": "docker-image://x"}'}, InvalidInput),
        ({"networkmode": "container:abc"}, Unsupported),
        ({"buildargs": "{"}, InvalidInput),
        ({"buildargs": "[1]"}, InvalidInput),
        ({"buildargs": '{"--x": "1"}'}, InvalidInput),
        ({"labels": '{"a": [1]}'}, InvalidInput),
        ({"t": "UPPER"}, InvalidInput),
        ({"extrahosts": "nothing"}, InvalidInput),
        ({"platform": "a/b/c/d"}, InvalidInput),
    ],
)
def test_wrong_options_are_refused(query: dict[str, str], error: type[Exception]) -> None:
    with pytest.raises(error):
        options.parse(query)


def test_changes_to_a_config() -> None:
    config = changes.apply(
        {"Env": ["A=1", "B=2"]},
        ['CMD ["a", "b"]', "ENTRYPOINT run it", 'ENV A=3 "C=d e"', "ENV D x y", "EXPOSE 80 53/udp",
         "LABEL k=v", "USER app", "WORKDIR /w", 'VOLUME ["/data"]',
         "STOPSIGNAL SIGINT\nONBUILD RUN x"],
    )  # fmt: skip
    assert config == {
        "Cmd": ["a", "b"],
        "Entrypoint": ["/bin/sh", "-c", "run it"],
        "Env": ["B=2", "A=3", "C=d e", "D=x y"],
        "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
        "Labels": {"k": "v"},
        "User": "app",
        "WorkingDir": "/w",
        "Volumes": {"/data": {}},
        "StopSignal": "SIGINT",
        "OnBuild": ["RUN x"],
    }
    for wrong in ("FROM x", "RUN y", 'CMD ["a', "CMD [1]", 'ENV "open'):
        with pytest.raises(InvalidInput):
            changes.apply({}, [wrong])


def test_platforms() -> None:
    def entry(architecture: str, variant: str = "") -> dict[str, object]:
        digest = digest_of(architecture.encode() + variant.encode())
        where = {"architecture": architecture, "os": "linux", "variant": variant}
        return {"digest": digest, "size": 1, "platform": where}

    raw = {
        "schemaVersion": 2,
        "manifests": [entry("amd64"), entry("arm", "v6"), entry("arm", "v7")],
    }
    index = manifest.read(json.dumps(raw).encode())

    def chosen(text: str) -> str:
        return manifest.choose(index, manifest.parse_platform(text)).digest

    assert chosen("linux/amd64") == chosen("amd64") == chosen("linux/x86_64") == digest_of(b"amd64")
    assert chosen("linux/arm/v7") == digest_of(b"armv7")
    with pytest.raises(NotFound, match="no matching manifest for linux/riscv64"):
        chosen("linux/riscv64")


@pytest.mark.parametrize(
    "raw",
    [b"", b"[]", b"{}", b'{"schemaVersion": 1}', b'{"schemaVersion": 2}',
     b'{"schemaVersion": 2, "config": {"digest": "sha256:../x"}, "layers": []}'],
)  # fmt: skip
def test_bad_manifests_are_refused(raw: bytes) -> None:
    with pytest.raises((InvalidInput, Unsupported)):
        manifest.read(raw)


DEB822 = """\
Types: deb
# a comment
URIs: http://mirror/debian
Suites: trixie trixie-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb deb-src
URIs: http://mirror/debian-security
Suites: trixie-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: https://other.example/debian
Suites: trixie
Components: main
Signed-By: /etc/apt/keyrings/other.gpg

Enabled: no
Types: deb
URIs: http://off/debian
Suites: trixie
Components: main
"""
KEY = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"


def lines(texts: dict[str, str], suite: str) -> list[str]:
    return [str(source) for source in bootstrap.sources(texts, suite)]


def test_sources_of_the_machine() -> None:
    assert lines({"debian.sources": DEB822}, "trixie") == [
        f"deb {KEY} http://mirror/debian trixie main",
        f"deb {KEY} http://mirror/debian trixie-updates main",
        f"deb {KEY} http://mirror/debian-security trixie-security main",
    ]
    one_line = """\
        # deb http://no/debian bookworm main
        deb http://mirror/debian bookworm main contrib  # why
        deb [arch=amd64 trusted=yes] http://mirror/debian-security bookworm-security main
        deb-src http://mirror/debian bookworm main
        deb [signed-by=/x.gpg] https://docker.example/debian bookworm main
        """
    assert lines({"sources.list": one_line}, "bookworm") == [
        "deb http://mirror/debian bookworm main contrib",
        "deb [trusted=yes] http://mirror/debian-security bookworm-security main",
    ]


def test_another_suite_comes_from_the_same_mirror() -> None:
    assert lines({"debian.sources": DEB822}, "bookworm") == [
        f"deb {KEY} http://mirror/debian bookworm main",
        f"deb {KEY} http://mirror/debian-security bookworm-security main",
    ]
    with pytest.raises(InvalidInput, match="no mirror of Debian"):
        lines({}, "sid")


def test_names_of_packages_are_checked() -> None:
    bootstrap.check("bookworm", ["python3", "libstdc++6", "redis-server"])
    for suite, packages in (("-x", []), ("a b", []), ("sid", ["--hook=x"]), ("sid", ["a,b"])):
        with pytest.raises(InvalidInput):
            bootstrap.check(suite, packages)


def test_secrets_are_handed_out_once_and_bounded() -> None:
    text = base64.b64encode(b"hush").decode()
    waiting = inputs.Waiting()
    token = waiting.keep(inputs.parse({"secrets": {"a": text}, "ssh": {"k": text}}))
    taken = waiting.take(token)
    assert taken.secrets == {"a": b"hush"} and taken.size() == 8 and taken
    with pytest.raises(InvalidInput):
        waiting.take(token)
    big = inputs.Private({str(n): bytes(inputs.MOST) for n in range(20)})
    waiting.keep(big)
    with pytest.raises(InvalidInput, match="too many secrets"):
        waiting.keep(big)
    for wrong in (
        {"secrets": {"a,src=/etc/shadow": text}},
        {"secrets": {"a": "?"}},
        {"secrets": {"a": base64.b64encode(bytes(inputs.MOST + 1)).decode()}},
        {"secrets": ["a"]},
        {"other": {}},
    ):
        with pytest.raises(InvalidInput):
            inputs.parse(wrong)


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("https://x.org/a.git#v1:sub", remote.Repository("https://x.org/a.git", "v1", "sub")),
        ("git://x.org/a", remote.Repository("git://x.org/a", "", "")),
        ("github.com/a/b", remote.Repository("https://github.com/a/b", "", "")),
        ("git@x.org:a.git#:sub", remote.Repository("git@x.org:a.git", "", "sub")),
        ("https://x.org/a.tar.gz", None),
    ],
)
def test_which_addresses_are_repositories(url: str, found: remote.Repository | None) -> None:
    assert remote.repository(url) == found
