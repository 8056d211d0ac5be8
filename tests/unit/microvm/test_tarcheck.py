from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemel.errors import InvalidInput
from gemel.runtime.microvm.tarcheck import TarCheck


def packed(*names: str, format: int = tarfile.PAX_FORMAT, content: bytes = b"x" * 700) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as tar:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def through(data: bytes, size: int) -> bytes:
    check = TarCheck()
    out = b"".join(check.feed(data[at : at + size]) for at in range(0, len(data), size))
    check.finish()
    return out


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
@given(size=st.integers(1, 3000))
def test_whole_tars_pass_unchanged(format: int, size: int) -> None:
    names = ["a", "b/..c", "d..", "e/f"]
    if format != tarfile.USTAR_FORMAT:
        names += ["ü" * 90, "long/" * 60 + "n"]
    data = packed(*names, format=format)
    assert through(data, size) == data


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_compressed_ones_are_unpacked(pack: object) -> None:
    data = packed("a", "b")
    assert through(pack(data), 100) == data  # type: ignore[operator]


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize("name", ["../x", "a/../x", "..", "n" * 200 + "/../x", "ü/" * 80 + "../x"])
def test_names_that_lead_out_are_refused(name: str, format: int) -> None:
    with pytest.raises(InvalidInput, match="leads out"):
        through(packed("fine", name, format=format), 512)


@pytest.mark.parametrize("data", [b"no tar" * 1000, packed("a")[:600], packed("a")[:300]])
def test_what_is_no_tar_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput, match="no tar"):
        through(data, 512)


@given(noise=st.binary(max_size=5000), size=st.integers(1, 600))
def test_noise_is_refused_or_passes(noise: bytes, size: int) -> None:
    try:
        through(noise, size)
    except InvalidInput:
        pass
