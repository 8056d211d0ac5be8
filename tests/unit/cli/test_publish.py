"""What ``publish`` asks and refuses, in dry runs: no engine is needed for that."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gemel.cli.main import call

Publish = Callable[..., str]

FILES = {
    "env.yaml": "services: {a: {image: x, environment: {DB_PASSWORD: hunter22, A: b}}}\n",
    "file.yaml": "services: {a: {image: x, env_file: a.env, build: .}}\n",
    "a.env": "A=1\n",
    "bind.yaml": "services: {a: {image: x, volumes: ['./d:/d']}}\n",
    "build.yaml": "services: {a: {build: .}}\n",
    "local.yaml": "include: [bind.yaml]\nservices: {b: {image: x}}\n",
}


@pytest.fixture
def publish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Publish:
    """Runs it for a file; what was said. input: what the person answers, or nothing at all."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)

    def run(file: str, *words: str, input: str = "", status: int = 0) -> str:
        monkeypatch.setattr(sys, "stdin", io.StringIO(input))
        code = call(["-f", file, "publish", "--dry-run", "r.example/team/app:1", *words])
        out, said = capsys.readouterr()
        assert code == status, said
        assert out == ""
        return said

    return run


def test_variables_need_the_option_and_a_yes(publish: Publish) -> None:
    said = publish("env.yaml", input="y\n", status=1)
    assert 'service "a" has environment variable(s) declared.' in said
    assert "--with-env" in said and "hunter22" not in said
    said = publish("env.yaml", "--with-env", input="y\nn\n")
    assert 'Secret by its name\n"services.a.environment.DB_PASSWORD": hu…' in said
    assert "DB_PASSWORD=hu…\nA=b\n" in said and "hunter22" not in said
    assert said.endswith("not published\n")
    assert "published (dry run)" in publish("env.yaml", "--with-env", input="y\nYES\n")
    assert "published (dry run)" in publish("env.yaml", "-y")


def test_env_files_are_part_of_it_only_with_the_option(publish: Publish) -> None:
    said = publish("file.yaml", input="y\n", status=1)
    assert 'service "a" has env_file declared.' in said
    said = publish("file.yaml", "--with-env", "-y")
    assert "  Compose file file.yaml, " in said and "  env file " in said
    assert "would push x" in said
    said = publish("file.yaml", "-y")
    assert "a.env is not part of what is published" in said and "  env file " not in said


def test_mounted_folders_are_asked_about(publish: Publish, tmp_path: Path) -> None:
    said = publish("bind.yaml", input="n\n")
    assert f"a: {tmp_path}/d:/d" in said and said.endswith("not published\n")
    assert publish("bind.yaml", input="\n").endswith("not published\n")
    said = publish("bind.yaml", status=1)
    assert "nobody answered" in said and "--yes" in said
    assert "published (dry run)" in publish("bind.yaml", input="y\n")
    assert "bind mounts" not in publish("bind.yaml", "-y")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("build.yaml", "-y"), "only contains a build section for service(s): 'a'"),
        (("local.yaml", "-y"), "cannot publish compose file with local includes"),
        (("bind.yaml", "--oci-version", "2"), "unsupported OCI version: 2"),
        (("bind.yaml", "--app"), "gemel push"),
        (("none.yaml", "-y"), "does not exist"),
    ],
)
def test_what_cannot_be_published(publish: Publish, words: tuple[str, ...], reason: str) -> None:
    assert reason in publish(*words, status=1)


def test_a_name_for_what_is_published(
    publish: Publish, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a@sha256:" + "0" * 64, "a b", "oci://"):
        assert call(["-f", "bind.yaml", "publish", "-y", "--dry-run", name]) == 1
        assert "digest" in (said := capsys.readouterr().err) or "names no artifact" in said


def test_standard_input_is_a_file(
    publish: Publish, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from gemel.client.project import source

    data = io.TextIOWrapper(io.BytesIO(b"services: {fromhere: {image: x}}\n"))
    monkeypatch.setattr(sys, "stdin", data)
    source._read_once.cache_clear()
    try:
        assert call(["-f", "-", "config", "--services"]) == 0
        assert capsys.readouterr().out == "fromhere\n"
        assert call(["-f", "-", "publish", "-y", "--dry-run", "a"]) == 1
        assert "standard input is not published" in capsys.readouterr().err
    finally:
        source._read_once.cache_clear()
