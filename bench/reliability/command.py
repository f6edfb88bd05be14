"""Count how often lrw is wrong, for docs/reliability.md: `nox -s reliability`.

Without arguments everything: the laws about arguments and damaged files with their nightly profile, then an hour of
accelerated networks in eight threads. A row is added to the table for each. Exit codes: 0 nothing was wrong, 1
something was, 2 wrong arguments, 130 stopped by Ctrl-C.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from bench.command import Parser, count, file, positive
from bench.reliability.fuzz import LAWS, fuzz
from bench.reliability.rows import Row
from bench.reliability.soak import soak
from bench.rows import Writer

PARTS = ("fuzz", "soak")


def main(argv: Sequence[str] | None = None) -> int:
    """Do what is asked for."""
    parser = Parser("reliability", __doc__)
    add = parser.add_argument
    add("--only", choices=PARTS, help="one part")
    add("--minutes", type=positive, default=60.0, metavar="N", help="of the soak; 60 unless told")
    add("--threads", type=count(1), default=8, metavar="N", help="of the soak; 8 unless told")
    add("--csv", type=file, default=Path(__file__).parents[1] / "results" / "reliability.csv", metavar="FILE",
        help="where rows are added")  # fmt: skip
    arguments = parser.parse_args(argv)
    wrong = 0
    with Writer(arguments.csv, add=True) as writer:
        for what in LAWS if arguments.only in (None, "fuzz") else ():
            wrong += _keep(fuzz(what), writer)
        if arguments.only in (None, "soak"):
            wrong += _keep(soak(arguments.minutes, arguments.threads, _say), writer)
    return int(wrong > 0)


def _keep(row: Row, writer: Writer) -> int:
    writer.write(row)
    print(f"{row.what}: {row.cases:,} cases, {row.wrong} wrong, {row.minutes:.1f} min", flush=True)
    if row.grew:
        print(f"{row.what}: memory grew from {row.warm_mb:.0f} to {row.end_mb:.0f} MB", flush=True)
    return row.wrong + row.grew


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
