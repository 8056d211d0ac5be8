"""Providers' programs and Docker's model plugin: found, called, and all that they can do wrong."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest

from gemel.client import plugins
from gemel.client.engine import Place
from gemel.client.project import models, remembered
from gemel.client.project.display import Progress
from gemel.client.project.models import Models
from gemel.client.project.outside import findings
from gemel.client.project.providers import Providers
from gemel.compose.loader import load
from gemel.compose.project import Project
from gemel.compose.provider import Variables
from gemel.errors import Failed, GemelError, InvalidInput, NotFound

FILE = """\
name: shop
services:
  db:
    provider:
      type: cloudy
      options: {size: 3}
    x-gemel: {timeout: 60s}
  app:
    image: app
    models: [llm]
models:
  llm: {model: ai/small, context_size: 512, runtime_flags: [--fast, -v]}
"""
SAY = """say() { printf '{"type": "%s", "message": "%s"}\\n' "$1" "$2"; }
echo "$@" >> "$LOG"
[ "$2" = metadata ] && METADATA
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose ``bin`` is in PATH, and whose ``docker`` is Docker's configuration."""
    for name in ("bin", "docker/cli-plugins", "more"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    return tmp_path


def script(path: Path, text: str, metadata: str = "exit 1") -> None:
    path.write_text("#!/bin/sh\n" + SAY.replace("METADATA", metadata) + text)
    path.chmod(0o755)


def project(place: Path, text: str = FILE) -> Project:
    (place / "compose.yaml").write_text(text)
    return load((), cwd=str(place), env=os.environ).project


def called(place: Path) -> list[str]:
    return (place / "log").read_text().splitlines()


def up(place: Path, text: str = FILE) -> tuple[Variables, str]:
    """What a program said, and the progress that was shown."""
    stream = io.StringIO()
    providers = Providers(project(place, text))
    with Progress("Running", "plain", stream) as shown:
        return providers.up("db", shown), stream.getvalue()


def test_up_down_and_stop(place: Path) -> None:
    script(
        place / "bin/cloudy",
        "say info 'half \\u001b[1m way'; say debug hidden; say setenv URL=x=y; say rawsetenv R=1\n",
        metadata="echo '{\"stop\": {}}' && exit",
    )
    variables, shown = up(place)
    assert variables == Variables({"URL": "x=y"}, {"R": "1"})
    assert "Service db  half  [1m way\n Service db  Created" in shown
    assert "\x1b" not in shown and "hidden" not in shown
    providers = Providers(project(place))
    with Progress("Running", "quiet") as quiet:
        providers.down("db", quiet)
        providers.stop("db", quiet)
    calls = [line for line in called(place) if "metadata" not in line]
    assert calls == [
        f"compose --project-name=shop {word} --size=3 db" for word in ("up", "down", "stop")
    ]


def test_stop_is_left_out_by_a_program_that_does_not_say_it_can(place: Path) -> None:
    script(place / "bin/cloudy", "")
    with Progress("Running", "quiet") as shown:
        Providers(project(place)).stop("db", shown)
    assert called(place) == ["compose metadata"]


@pytest.mark.parametrize(
    ("text", "words", "details"),
    [
        ("echo no money >&2; exit 3", "failed to create service db: exit status 3", "no money"),
        ("kill -9 $$", "failed to create service db: ended by signal 9", ""),
        ('say error "no quota\\nask them"; sleep 600', "cloudy: no quota", "ask them"),
        ("sleep 600", "cloudy took longer than 1 s and was ended", ""),
        ("yes", "cloudy says what no provider says: y", ""),
        ("while :; do say info x; say debug y; done", "said more than 4 MiB", ""),
        ("head -c 100000 /dev/zero", "a line of more than 64 KiB", ""),
        ("say setenv URL", "sets a variable that cannot be set (KEY=VALUE is expected): URL", ""),
        ("printf '{'", "cloudy says what no provider says: {", ""),
    ],
)
def test_what_goes_wrong_is_told_with_the_line(
    place: Path, text: str, words: str, details: str
) -> None:
    script(place / "bin/cloudy", text + "\n")
    limit = "1s" if "1 s" in words else "300s"
    with pytest.raises(Failed) as problem:
        up(place, FILE.replace("60s", limit))
    assert problem.value.brief.startswith("compose.yaml:4:5: ")
    assert words in problem.value.brief and details in problem.value.details


def test_options_are_checked_before_anything_is_called(place: Path) -> None:
    known = json.dumps({"up": {"parameters": [{"name": "kind", "required": True}]}})
    script(place / "bin/cloudy", "", metadata=f"echo '{known}' && exit")
    with pytest.raises(InvalidInput, match=r"compose.yaml:4:5: .*provider.options lacks kind"):
        Providers(project(place)).check(["db"])
    text = FILE.replace("{size: 3}", "{kind: a, size: 3}")
    (warning,) = Providers(project(place, text)).check(["db"])
    assert "cloudy knows no option size" in warning
    assert called(place) == ["compose metadata"] * 2


def test_a_program_is_a_plugin_of_docker_or_one_in_path(place: Path) -> None:
    assert plugins.provider("cloudy") is None
    script(place / "bin/cloudy", "")
    assert plugins.provider("cloudy") == str(place / "bin/cloudy")
    script(place / "more/docker-cloudy", "")
    (place / "docker/config.json").write_text(
        json.dumps({"cliPluginsExtraDirs": [f"{place}/more"]})
    )
    assert plugins.provider("cloudy") == str(place / "more/docker-cloudy")
    script(place / "docker/cli-plugins/docker-cloudy", "")
    assert plugins.provider("cloudy") == str(place / "docker/cli-plugins/docker-cloudy")
    (place / "docker/cli-plugins/docker-cloudy").chmod(0o644)
    assert plugins.provider("cloudy") == str(place / "more/docker-cloudy")
    script(place / "bin/compose", "")
    assert plugins.provider("compose") is None
    assert plugins.find("../bin/cloudy") is None
    (place / "docker/config.json").write_text("{")
    assert plugins.find("cloudy") is None


def test_what_is_missing_is_found_with_its_line(place: Path) -> None:
    (place / "compose.yaml").write_text(FILE)
    loaded = load((), cwd=str(place), env=os.environ)
    lines = [one.render() for one in findings(loaded.project, loaded.origins, ["app", "db"])]
    assert len(lines) == 2
    assert (
        'compose.yaml:5:13: services.db.provider.type is refused: there is no provider "cloudy"'
        in (lines[0])
    )
    assert "compose.yaml:10:14: services.app.models.llm is refused" in lines[1]
    assert "x-gemel" in lines[1] and "model plugin" in lines[1]
    with pytest.raises(NotFound, match=r"compose.yaml:4:5: there is no provider"):
        up(place)
    script(place / "bin/cloudy", "")
    script(place / "docker/cli-plugins/docker-model", "")
    assert findings(loaded.project, loaded.origins, ["app", "db"]) == []


MODEL = """
case "$1" in
  ls) echo '[{"tags": [TAGS]}]' ;;
  pull) printf 'layer 1\\rlayer 2\\n\\n' ;;
  status) echo '{"running": true, "endpoint": "http://172.17.0.1:12434/engines/v1/"}' ;;
  docker-cli-plugin-metadata) echo '{"Version": "VERSION"}' ;;
esac
"""


@pytest.mark.parametrize(
    ("version", "tags", "calls"),
    [
        ("v1.0.6", "", ["configure --context-size 512 ai/small -- --fast -v", "pull ai/small"]),
        ("v0.1.44", '"ai/small"', ["configure --context-size 512 ai/small"]),
        ("odd", '"ai/small"', ["configure --context-size 512 ai/small"]),
    ],
)
def test_models_are_pulled_and_configured_by_dockers_runner(
    place: Path, version: str, tags: str, calls: list[str]
) -> None:
    plugin = MODEL.replace("VERSION", version).replace("TAGS", tags)
    script(place / "docker/cli-plugins/docker-model", plugin)
    stream = io.StringIO()
    with Progress("Running", "plain", stream) as shown:
        url = Models(project(place), ["app"]).prepare(shown)
    assert url == "http://172.17.0.1:12434/engines/v1/"
    changes = [line for line in called(place) if line.split()[0] in ("pull", "configure")]
    assert sorted(changes) == calls
    assert ("Model llm  Pulling layer 2" in stream.getvalue()) == (not tags)
    assert "Model llm  Configured" in stream.getvalue()
    assert models.local_warning(url) == "" != models.local_warning("http://localhost:12434/")


@pytest.mark.parametrize(
    ("command", "text", "words"),
    [
        ("ls", "echo not running >&2; exit 1", "docker model ls failed with status 1"),
        ("ls", "echo '[[['", "docker model ls says what is not understood"),
        ("status", "echo '{}'", "does not say where the model runner answers"),
        ("pull", "exit 4", "compose.yaml:12:3: docker model pull failed with status 4"),
        ("configure", "exit 5", "compose.yaml:12:3: docker model configure failed with status 5"),
    ],
)
def test_what_the_runner_cannot_do(place: Path, command: str, text: str, words: str) -> None:
    plugin = MODEL.replace("TAGS", "").replace('case "$1" in', f'case "$1" in\n{command}) {text};;')
    script(place / "docker/cli-plugins/docker-model", plugin)
    with pytest.raises(GemelError) as problem, Progress("Running", "quiet") as shown:
        Models(project(place), ["app"]).prepare(shown)
    assert words in problem.value.brief
    assert command not in ("ls",) or "x-gemel" in problem.value.resolution or "not under" in words


def test_what_was_said_is_kept_for_this_user_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    where = Place("", str(tmp_path), str(tmp_path))
    assert remembered.read(where, "p") == remembered.Remembered()
    known = remembered.Remembered({"db": Variables({"A": "1"}, {})}, "http://x/")
    remembered.write(where, "p", known)
    assert remembered.read(where, "p") == known
    (path,) = tmp_path.rglob("outside.json")
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text("{")
    assert remembered.read(where, "p") == remembered.Remembered()
