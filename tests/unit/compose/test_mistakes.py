"""Files as people mistype them: what they are told."""

from __future__ import annotations

import pytest

from gemel.errors import InvalidInput, Unsupported
from tests.unit.compose.support import loaded, project


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('ports: ["80:80"', "compose.yaml:3:12: not YAML: this [ is not closed"),
        ("environment: {A: b", "compose.yaml:3:18: not YAML: this { is not closed"),
        ('command: "sleep 5', "compose.yaml:3:14: not YAML: this quote is not closed"),
    ],
)
def test_what_is_not_closed_is_shown_where_it_begins(line: str, words: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        project(f"services:\n  a:\n    {line}\n    image: x\n")
    assert words in caught.value.details or words in str(caught.value)


def test_files_at_an_address_are_refused_with_words() -> None:
    with pytest.raises(InvalidInput, match=r"a file at an address is not included: https://r/x"):
        project("include: ['https://r/x']\nservices: {a: {image: x}}\n")
    with pytest.raises(Unsupported, match="not read from an address"):
        loaded(use=("https://r/x",))
