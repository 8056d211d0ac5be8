"""What docker login has kept: in config.json, or with a helper's program."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from gemel.client import credentials
from gemel.client.pull import build_headers

SECRET = base64.b64encode(b"me:se:cret").decode()
HELPER = """\
#!/bin/sh
[ "$1" = get ] || exit 9
case "$(cat)" in
  r.example:5000) echo '{"Username": "you", "Secret": "word"}' ;;
  t.example) echo '{"Username": "<token>", "Secret": "long"}' ;;
  broken.example) echo 'no keyring'; exit 1 ;;
  odd.example) echo 'hello' ;;
  *) echo 'credentials not found in native keychain'; exit 1 ;;
esac
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "docker-credential-test").write_text(HELPER)
    (tmp_path / "docker-credential-test").chmod(0o755)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def write(home: Path, **config: Any) -> None:
    (home / "config.json").write_text(json.dumps(config))


def sent(text: str) -> Any:
    return json.loads(base64.urlsafe_b64decode(text)) if text else None


def test_of_the_file(home: Path) -> None:
    assert credentials.of_image("busybox") == ""
    write(home, auths={"https://index.docker.io/v1/": {"auth": SECRET},
                       "r.example:5000": {"auth": SECRET}, "n.example": {},
                       "i.example": {"identitytoken": "tok"}})  # fmt: skip
    for ref in ("busybox", "me/app:1", "docker.io/me/app", "r.example:5000/app"):
        found = sent(credentials.of_image(ref))
        assert (found["username"], found["password"]) == ("me", "se:cret")
    assert sent(credentials.of_image("i.example/x"))["identitytoken"] == "tok"
    assert credentials.of_image("n.example/app") == credentials.of_image("other.example/x") == ""
    every = sent(build_headers()["X-Registry-Config"])
    assert list(every) == ["docker.io", "r.example:5000", "i.example"]


def test_of_a_helper(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(home, credsStore="test", auths={"r.example:5000": {}, "t.example": {}, "z.example": {}})
    assert sent(credentials.of_image("r.example:5000/app"))["password"] == "word"
    assert sent(credentials.of_image("t.example/app"))["identitytoken"] == "long"
    assert credentials.of_image("busybox") == ""
    assert list(sent(build_headers()["X-Registry-Config"])) == ["r.example:5000", "t.example"]
    write(home, credHelpers={"t.example": "test"}, auths={"r.example:5000": {"auth": SECRET}})
    assert sent(credentials.of_image("t.example/app"))["identitytoken"] == "long"
    assert sent(credentials.of_image("r.example:5000/app"))["username"] == "me"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("helper", "words"),
    [
        ("test", "docker-credential-test failed for broken.example"),
        ("nowhere", "docker-credential-nowhere is not installed"),
        ("../x", "no name of a credential helper"),
    ],
)
def test_a_helper_that_fails_is_told_and_done_without(
    home: Path, capsys: pytest.CaptureFixture[str], helper: str, words: str
) -> None:
    write(home, credsStore=helper)
    assert credentials.of_image("broken.example/app") == ""
    assert words in capsys.readouterr().err


def test_what_is_not_understood_is_told(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(home, credsStore="test")
    assert credentials.of_image("odd.example/app") == ""
    assert "answered what is not understood" in capsys.readouterr().err
    (home / "config.json").write_text("{")
    assert credentials.of_image("busybox") == "" and "X-Registry-Config" not in build_headers()
    assert "config.json cannot be read" in capsys.readouterr().err
