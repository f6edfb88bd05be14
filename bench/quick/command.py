"""Measure all of it in five minutes and put it on a page for a browser: `nox -s bench`, or `python -m bench`.

Start-up, layers, whole networks, pruned networks and training steps, each behind a gate, in turns with torch and with
the peers that are installed, in this process; absent ones are named. The page has this run beside what is committed.
With --compare it says what changed since a run at another commit on this machine, or since the results committed there,
as far as the noise of what was timed beside lets it be told; runs are kept in bench/runs. Exit codes: 0 done, 1 a gate
is red, 2 wrong arguments or a file that cannot be written, 130 stopped by Ctrl-C.
"""

import os
import sys
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from bench import certificate, page
from bench.command import Parser, checked, file, names
from bench.gate import Red
from bench.overview import history
from bench.overview.compare import HEAD, Comparison, compare
from bench.overview.sheet import Fresh, sheet
from bench.quick import runs
from bench.quick.parts import PARTS
from bench.quick.running import Done, Progress, go


def main(argv: Sequence[str] | None = None) -> int:
    """Measure the parts, print a table of each and what changed, write the page."""
    arguments = _arguments(argv)
    if (reason := _hindrance(arguments.out)) is not None:
        print(f"bench: {reason}", file=sys.stderr)
        return 2
    parts = [part for part in PARTS if part.name in arguments.only]
    seconds = sum(part.seconds for part in PARTS)  # however few are asked for
    stamps = {part.name: certificate.stamp(versions=part.versions()) for part in parts}
    print(certificate.line(certificate.stamp()))
    try:
        with Progress() as progress:
            done = _measured(go(parts, stamps, progress, seconds))
            progress.say("the page")
            _written(arguments, done, stamps)
            progress.say(f"{arguments.out} is written")
    except Red as red:
        print(red, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    return 0


def _hindrance(out: Path) -> str | None:
    """Why there could be no page in the end."""
    if find_spec("matplotlib") is None:
        return "the page needs matplotlib, which is not installed (pip install 'lrw[plot]')"
    return None if os.access(out if out.exists() else out.absolute().parent, os.W_OK) else f"{out} cannot be written"


def _measured(parts: Iterable[Done]) -> list[Done]:
    """All of them, each printed as it comes."""
    done = []
    for found in parts:
        table = page.aligned(found.part.table(found.rows)) if found.rows else []
        print("", f"{found.part.name}:", *table, *found.notes, "", sep="\n", flush=True)
        done.append(found)
    return done


def _written(arguments: Namespace, done: Sequence[Done], stamps: Mapping[str, dict[str, str]]) -> None:
    """What changed, on the terminal; the page; and the rows, for later runs. Raises OSError."""
    there = [found for found in done if found.rows]
    changes = [] if arguments.compare is None else [(f.part.name, _change(f, arguments.compare)) for f in there]
    for name, change in changes:
        print(*_changed(name, arguments.compare, change), sep="\n")
    networks = next(part for part in PARTS if part.name == "networks")
    past, notes = runs.past(networks, certificate.stamp()["machine"]), [note for found in done for note in found.notes]
    fresh = Fresh({found.part.name: found.rows for found in there}, notes, past)
    arguments.out.write_text(sheet(fresh, arguments.compare or "", changes))
    runs.keep(there, stamps)


def _change(found: Done, ref: str) -> Comparison:
    """A part now against the same at `ref`."""
    part, machine = found.part, found.rows[0].machine
    then = runs.before(part, ref, machine)
    return compare([part.timed(row) for row in then], [part.timed(row) for row in found.rows])


def _changed(name: str, ref: str, change: Comparison) -> list[str]:
    if not change.changes:
        return [f"{name}: nothing of {ref} to compare with on this machine", ""]
    cells = [each.cells for each in change.changes]
    return [f"{name} since {ref}:", *page.aligned(page.table(HEAD, cells)), change.told, ""]


def _arguments(argv: Sequence[str] | None) -> Namespace:
    parser, known = Parser("bench", __doc__), [part.name for part in PARTS]
    some = f"some, by commas: {', '.join(known)}"
    parser.add_argument("--only", type=names(known), default=known, metavar="PARTS", help=some)
    parser.add_argument("--out", type=file, default=Path("bench.html"), metavar="FILE", help="default bench.html")
    parser.add_argument("--compare", type=checked(history.resolved), metavar="REF", help="a commit to compare with")
    return parser.parse_args(argv)
