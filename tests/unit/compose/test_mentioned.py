"""The variables that files mention."""

from __future__ import annotations

from gemel.compose.mentioned import Mention, mentions

from .support import Files

TEXT = """
services:
  a:
    image: "x:${TAG:-1}"
    command: ["$A", "$$NOT", "${B?needed}", "${C:+also ${D-inner}}", "$", "${A:-later}", "${"]
    environment: {"$KEY": 5}
"""


def test_every_variable_once_with_its_default() -> None:
    assert mentions(["/project/compose.yaml"], Files({"compose.yaml": TEXT})) == [
        Mention("A", default="later"),
        Mention("B", required=True),
        Mention("C", alternate="also ${D-inner}"),
        Mention("D", default="inner"),
        Mention("TAG", default="1"),
    ]
