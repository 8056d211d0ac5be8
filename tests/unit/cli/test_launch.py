"""launch.json: what others wrote in it stays."""

from __future__ import annotations

import json
from pathlib import Path

from gemel.client.debug import launch
from gemel.compose.project import Service

ENTRY = {"name": "gemel: api", "type": "debugpy", "port": 1}


def test_a_new_file() -> None:
    made = json.loads(launch.merged("", ENTRY) or "")
    assert made["configurations"] == [ENTRY]


def test_ours_is_replaced_and_others_stay() -> None:
    others = {"name": "mine", "x": [1, 2]}
    text = json.dumps({"version": "0.2.0", "configurations": [others, ENTRY], "compounds": []})
    made = json.loads(launch.merged(text, ENTRY | {"port": 2}) or "")
    assert made["configurations"] == [others, ENTRY | {"port": 2}]
    assert made["compounds"] == []


def test_comments_stay() -> None:
    text = """{
    // by hand, "quoted", with a url http://x
    "configurations": [
        {"name": "mine", "url": "http://host/*not a comment*/",}, /* the last */
    ],
}
"""
    made = launch.merged(text, ENTRY) or ""
    assert "// by hand" in made and "/* the last */" in made and "gemel: api" in made
    assert launch.merged(made, ENTRY) is None  # it is there already
    assert launch.merged("{ nonsense", ENTRY) is None
    assert launch.merged("[]", ENTRY) is None


def test_folders_come_from_the_compose_file() -> None:
    config = {
        "develop": {"watch": [{"action": "sync", "path": "/p/src", "target": "/app/src"},
                              {"action": "rebuild", "path": "/p/req.txt"}]},
        "volumes": [{"type": "bind", "source": "/p/etc", "target": "/etc/app"},
                    {"type": "volume", "source": "data", "target": "/data"}],
        "build": {"context": "/p"},
    }  # fmt: skip
    pairs = launch.mapped(Service("api", config), "/app", "/elsewhere")
    assert pairs == [("/p/src", "/app/src"), ("/p/etc", "/etc/app"), ("/p", "/app")]
    assert launch.mapped(None, "/srv", "/here") == [("/here", "/srv")]
    entry = launch.entry("python", "api", 5678, pairs, {}, "/p")
    assert entry["pathMappings"][0]["localRoot"] == "${workspaceFolder}/src"
    assert entry["pathMappings"][2]["localRoot"] == "${workspaceFolder}"


def test_writing(tmp_path: Path) -> None:
    path, done = launch.write(str(tmp_path), ENTRY)
    assert done and json.loads(path.read_text())["configurations"] == [ENTRY]
    path.write_text("{ by hand")
    assert launch.write(str(tmp_path), ENTRY) == (path, False)
    assert path.read_text() == "{ by hand"
