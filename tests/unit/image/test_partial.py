"""Which layers of a pull that broke off are kept."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from gemel.image import partial
from gemel.image.partial import KEPT, Partial

A, B, C = ("sha256:" + letter * 64 for letter in "abc")
SIZES = {A: 100, B: 200, C: 300}


@pytest.fixture
def marks(tmp_path: Path) -> Partial:
    made = Partial(tmp_path / "partial", lambda digest: SIZES.get(digest, 0))
    for ago, digest in enumerate(SIZES):
        made.mark(digest)
        when = time.time() - ago
        os.utime(tmp_path / "partial" / digest[7:], (when, when))
    return made


def test_whole_ones_are_kept_for_hours(marks: Partial) -> None:
    now = time.time()
    assert marks.spared(now) == {A, B, C}
    assert marks.spared(now + KEPT - 10) == {A, B, C}
    assert marks.spared(now + KEPT + 10) == set()
    assert marks.spared(now) == set()  # the marks are gone


def test_a_clock_that_was_put_back_keeps_nothing_for_ever(marks: Partial) -> None:
    assert marks.spared(time.time() - 2 * KEPT) == set()


def test_the_newest_are_kept_as_far_as_there_is_room(
    marks: Partial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partial, "MOST", 350)
    assert marks.spared() == {A, B}


def test_what_is_not_there_or_has_its_image_is_not_marked(marks: Partial) -> None:
    marks.unmark([A, "sha256:" + "9" * 64])
    marks.mark("sha256:" + "d" * 64)
    assert marks.spared() == {B, C}
    marks.clear()
    assert marks.spared() == set()
    marks.clear()
