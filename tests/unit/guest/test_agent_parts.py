"""The agent's pure parts under sanitizers, driven with random and nearly right bytes."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from gemel.runtime.microvm import protocol

HERE = Path(__file__).parent
AGENT = HERE.parents[2] / "guest" / "agent"
PARTS = ("frame", "record", "users", "program", "caps", "util")
FLAGS = "-D_GNU_SOURCE -std=gnu11 -g -O1 -fsanitize=address,undefined -fno-sanitize-recover=all"

PASSWD = (
    b"root:x:0:0:root:/root:/bin/sh\nann:x:1000:1001::/home/ann:/bin/sh\n#c:x:1:1::/:\n::::::\n"
)
GROUP = b"wheel:x:10:ann,bob,\nann:x:1001:\nx:y\nbig:x:99999999999:ann\n"


@pytest.fixture(scope="module")
def fuzz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("fuzz") / "fuzz"
    sources = [str(AGENT / f"{part}.c") for part in PARTS]
    command = ["gcc", *FLAGS.split(), "-o", str(program), str(HERE / "fuzz.c"), *sources]
    subprocess.run(command, check=True)
    return program


def mutated(seed: bytes, chance: random.Random) -> bytes:
    """``seed`` with a few bytes changed, left out or doubled."""
    data = bytearray(seed)
    for _ in range(chance.randrange(6)):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(3):
            case 0:
                data[at : at + 1] = bytes([chance.choice((0, 1, 58, 44, 10, 255, 65))])
            case 1:
                del data[at : at + chance.randrange(9)]
            case _:
                data[at:at] = data[at : at + chance.randrange(9)]
    return bytes(data)


def cases(chance: random.Random) -> bytes:
    """A few hundred cases, each with its length before it."""
    records = protocol.encode_records(
        [("arg", "sh"), ("env", "PATH=/bin"), ("tty", "24", "80"), ("rlimit", "nofile", "-1", "9"),
         ("cap", "CAP_CHOWN"), ("pids", "5"), ("cwd", "/"), ("user", "a"), ("masked", "/x")]
    )  # fmt: skip
    frames = protocol.encode(1, 4, b"abcd") + protocol.encode(0, 1, records)
    seeds = [records, frames, PASSWD + GROUP]
    parts: list[bytes] = []
    for _ in range(300):
        data = chance.randbytes(chance.randrange(200))
        if chance.random() < 0.8:
            data = mutated(chance.choice(seeds), chance)
        parts.append(len(data).to_bytes(2, "little") + data)
    return b"".join(parts)


@pytest.mark.parametrize("seed", range(4))
def test_no_bytes_make_it_read_or_write_where_it_must_not(fuzz: Path, seed: int) -> None:
    data = cases(random.Random(seed))
    done = subprocess.run([str(fuzz)], input=data, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()


def test_a_broken_rule_would_be_seen(tmp_path: Path) -> None:
    """The sanitizers do work here: a deliberate overrun is reported."""
    source = tmp_path / "overrun.c"
    source.write_text(
        "#include <stdlib.h>\nint main(int c, char **v) { (void)v; char *p = malloc(2);"
        " p[c + 1] = 1; free(p); return 0; }\n"
    )
    program = tmp_path / "overrun"
    subprocess.run(["gcc", *FLAGS.split(), "-o", str(program), str(source)], check=True)
    done = subprocess.run([str(program)], capture_output=True, timeout=60)
    assert done.returncode != 0
    assert b"overrun.c:2" in done.stderr
