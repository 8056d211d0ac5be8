"""A tar stream with another owner."""

from __future__ import annotations

import io
import tarfile
from collections.abc import AsyncIterator

import pytest

from gemel.engine import tarowner
from gemel.errors import InvalidInput


def packed(uid: int = 7, form: int = tarfile.GNU_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for name, kind, data in (
            ("d", tarfile.DIRTYPE, b""),
            ("d/" + "long" * 60, tarfile.REGTYPE, b"x" * 1300),
            ("empty", tarfile.REGTYPE, b""),
            ("link", tarfile.SYMTYPE, b""),
        ):
            entry = tarfile.TarInfo(name)
            entry.type, entry.size, entry.uid, entry.uname = kind, len(data), uid, "somebody"
            entry.linkname = "empty" if kind == tarfile.SYMTYPE else ""
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


async def pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("size", [1, 511, 100_000])
async def test_all_entries_get_the_owner_and_keep_the_rest(form: int, size: int) -> None:
    data = packed(form=form)
    out = b"".join([piece async for piece in tarowner.owned(pieces(data, size), 1000, 50)])
    with (
        tarfile.open(fileobj=io.BytesIO(out)) as new,
        tarfile.open(fileobj=io.BytesIO(data)) as old,
    ):
        for one, other in zip(new.getmembers(), old.getmembers(), strict=True):
            assert (one.uid, one.gid, one.uname) == (1000, 50, "")
            assert (one.name, one.size, one.type) == (other.name, other.size, other.type)
            if one.isreg():
                found, wanted = new.extractfile(one), old.extractfile(other)
                assert found and wanted and found.read() == wanted.read()


async def test_what_is_no_tar_is_refused() -> None:
    for data in (b"no tar" * 1000, packed()[:700], packed(3_000_000, tarfile.PAX_FORMAT)):
        with pytest.raises(InvalidInput):
            [piece async for piece in tarowner.owned(pieces(data, 4096), 1, 1)]


async def test_the_text_of_a_file() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo("passwd")
        entry.size = 4
        tar.addfile(entry, io.BytesIO(b"root"))
    assert await tarowner.text(pieces(out.getvalue(), 100)) == b"root"
