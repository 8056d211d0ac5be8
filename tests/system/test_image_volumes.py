"""Images mounted into services: Compose's volumes of type image."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine import IMAGE, EngineProcess
from tests.images import make_tar

pytestmark = pytest.mark.root

FILE = """\
name: iv
services:
  one:
    image: IMAGE
    runtime: RUNTIME
    command: sh -c "cat /data/in/the/image /sub/image; touch /data/x; ls /data; sleep 600"
    stop_grace_period: 0s
    volumes:
      - {type: image, source: files, target: /data}
      - {type: image, source: files, target: /sub, image: {subpath: in/the}}
"""


@pytest.fixture
def folder(engine: EngineProcess, tmp_path: Path) -> Iterator[Path]:
    write(tmp_path, "first")
    (tmp_path / "compose.yaml").write_text(FILE.replace("IMAGE", IMAGE, 1))
    yield tmp_path
    engine.gemel("-p", "iv", "down", "-t", "0", cwd=tmp_path)


def write(folder: Path, text: str) -> None:
    (folder / "files.tar").write_bytes(make_tar({"in/the/image": text.encode() + b"\n"}))


def use(folder: Path, runtime: str) -> None:
    file = folder / "compose.yaml"
    file.write_text(file.read_text().replace("RUNTIME", runtime))


def logged(engine: EngineProcess, folder: Path, least: int) -> str:
    def text() -> str:
        done = engine.gemel("logs", "--no-log-prefix", cwd=folder)
        return done.stdout + done.stderr

    engine.settle(lambda: text().count("\n") >= least, "the service has said nothing")
    return text()


@pytest.mark.parametrize("runtime", ["container", "microvm"])
def test_a_service_reads_another_images_files(
    engine: EngineProcess, folder: Path, runtime: str
) -> None:
    use(folder, runtime)
    engine.gemel("image", "import", "files.tar", "files", cwd=folder)
    engine.gemel("up", "-d", cwd=folder)
    text = logged(engine, folder, 4)
    assert text.count("first\n") == 2 and "Read-only file system" in text, text
    assert "in\n" in text


def test_the_image_is_kept_while_it_is_used_and_a_new_one_is_taken_up(
    engine: EngineProcess, folder: Path
) -> None:
    use(folder, "container")
    engine.gemel("image", "import", "files.tar", "files", cwd=folder)
    engine.gemel("up", "-d", cwd=folder)
    [mount, _] = sorted(
        json.loads(engine.gemel("inspect", "iv-one-1", cwd=folder).stdout)[0]["Mounts"],
        key=lambda entry: str(entry["Destination"]),
    )
    assert mount["Type"] == "image" and mount["RW"] is False
    gone = engine.gemel("image", "rm", mount["Name"], cwd=folder, check=False)
    assert gone.returncode == 1 and "iv-one-1" in gone.stderr
    assert "Running" in engine.gemel("up", "-d", cwd=folder).stderr
    write(folder, "second")
    engine.gemel("image", "import", "files.tar", "files", cwd=folder)
    assert "Recreated" in engine.gemel("up", "-d", cwd=folder).stderr
    assert logged(engine, folder, 4).count("second\n") == 2


def test_what_is_not_there_is_said(engine: EngineProcess, folder: Path) -> None:
    use(folder, "container")
    file = folder / "compose.yaml"
    text = file.read_text()
    engine.gemel("image", "import", "files.tar", "files", cwd=folder)
    file.write_text(text.replace("subpath: in/the", "subpath: ../../etc"))
    done = engine.gemel("up", "-d", cwd=folder, check=False)
    assert done.returncode == 1 and "no folder '../../etc'" in done.stderr, done.stderr
    file.write_text(text.replace("source: files,", "source: 127.0.0.1:1/no/such,"))
    done = engine.gemel("up", "-d", cwd=folder, check=False)
    assert done.returncode == 1 and "cannot reach the registry 127.0.0.1:1" in done.stderr
    file.write_text(text.replace("source: files, target: /data", "target: /data"))
    done = engine.gemel("config", cwd=folder, check=False)
    assert done.returncode != 0 and "an image volume needs a source" in done.stderr
    file.write_text(text)
