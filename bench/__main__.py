"""gemel and its peers, measured in turns in one run.

usage: bench/run [PART…] [-n N] [--json FILE] [--markdown FILE] [--peers LIST]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from bench import isolation, report
from bench.measure import Case
from bench.parts import PARTS
from bench.peers import Field

_PEERS = "dockerd,podman,compose"
#: Seconds that the measurements of one part may take.
_SECONDS = 120.0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench/run", description="Measures gemel beside its peers, in turns, in one run."
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("-n", type=int, default=15, metavar="N", help="rounds at most (15)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there too")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there too")
    parser.add_argument("--peers", default=_PEERS, metavar="LIST", help=f"of {_PEERS}; '' for none")
    parser.add_argument(
        "--seconds", type=float, default=_SECONDS, metavar="S", help="most for each part (120)"
    )
    given = parser.parse_args()
    if wrong := [part for part in given.parts if part not in PARTS]:
        parser.error(f"no part {wrong[0]!r}; there are {', '.join(PARTS)}")
    peers = [name for name in given.peers.split(",") if name]
    if wrong := [name for name in peers if name not in _PEERS.split(",")]:
        parser.error(f"no peer {wrong[0]!r}; there are {_PEERS}")
    if given.n < 1:
        parser.error("-n must be at least 1")
    given.peers = peers
    return given


def _ended(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _measure(given: argparse.Namespace, cases: list[Case], field: Field) -> list[str]:
    """Runs the parts; a part that fails is told and the others go on. What failed."""
    failed = []
    for part in given.parts or PARTS:
        begin = time.monotonic()
        print(f"==> {part}", file=sys.stderr, flush=True)
        try:
            cases += PARTS[part](field, given.n, given.seconds)
        except Exception as error:
            failed.append(f"{part}: {type(error).__name__}: {error}")
            print(f"    failed: {error}", file=sys.stderr)
        print(f"    {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
    return failed


def main() -> int:
    """0, or 1 if a part failed. An aim that is missed is told in the table, it is no failure."""
    given = _arguments()
    if os.geteuid() != 0:
        print("error: the benchmarks have to run as root", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, _ended)
    about = report.machine()
    programs = report.versions()
    if about["load"][0] > 0.25 * about["cpus"]:
        print(
            f"warning: the load average is {about['load'][0]} on {about['cpus']} processors:"
            " the figures will be too high and spread widely",
            file=sys.stderr,
        )
    isolation.enter()
    cases: list[Case] = []
    failed: list[str] = []
    field = Field(Path(tempfile.mkdtemp(prefix="gb", dir="/tmp")), given.peers)
    try:
        failed = _measure(given, cases, field)
    except KeyboardInterrupt:
        failed = ["interrupted"]
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        field.close()
    about["load_at_the_end"] = [round(one, 2) for one in os.getloadavg()]
    _write(given, about, programs, cases, field.missing, failed)
    return 1 if failed else 0


def _write(
    given: argparse.Namespace,
    about: dict[str, object],
    programs: dict[str, str],
    cases: list[Case],
    missing: dict[str, str],
    failed: list[str],
) -> None:
    notes = [f"{case.part}, {case.name}: {note}" for case in cases for note in case.notes]
    notes += [f"not measured: {name}: {why}" for name, why in missing.items()]
    notes += [f"failed: {one}" for one in failed]
    lines = [report.heading(about), *(f"{name}: {text}" for name, text in programs.items())]
    print("\n".join([*lines, "", report.table(cases, markdown=False), "", *notes]))
    if given.json:
        document = report.document(about, programs, cases, missing)
        given.json.write_text(json.dumps({**document, "failed": failed}, indent=1) + "\n")
    if given.markdown:
        text = ["- " + line for line in lines]
        table = report.table(cases, markdown=True)
        notes = ["- " + note for note in notes]
        given.markdown.write_text("\n".join([*text, "", table, "", *notes]) + "\n")


if __name__ == "__main__":
    sys.exit(main())
