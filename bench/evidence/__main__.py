"""Train every method on every task, time what came of it, write the page: `nox -s evidence`.

What is done already (chains in the CSV) is not done again: an interrupted run goes on. Exit codes: 0 done, 1 a chain
failed, 2 wrong arguments, 130 stopped by Ctrl-C.
"""

import argparse
import sys
from collections.abc import Sequence
from os import cpu_count
from pathlib import Path

from bench.evidence import latency, page, pool, rows
from bench.evidence.chain import DENSE, Job
from bench.evidence.settings import SETTINGS, Setting
from bench.evidence.tasks import missing

ROOT = Path(__file__).parents[2]


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is asked for."""
    arguments = _arguments(argv)
    setting = SETTINGS[arguments.setting]
    if arguments.only in (None, "train") and not pool.train(
        _jobs(arguments, setting), arguments.csv, arguments.workers
    ):
        return 1
    if arguments.only in (None, "time"):
        latency.measure(arguments.csv, arguments.latency, setting, arguments.data, arguments.folder)
    if arguments.only in (None, "page") and arguments.csv == rows.RESULTS:
        page.write()
    return 0


def _jobs(arguments: argparse.Namespace, setting: Setting) -> list[Job]:
    """By task, seed by seed, so that what is interrupted has whole seeds."""
    jobs = []
    for task in arguments.tasks or setting.methods:
        reason = missing(task, arguments.data)
        if reason is not None:
            print(f"{task}: left out, {reason}; --data names the folder", file=sys.stderr)
            continue
        for seed in range(arguments.seeds or setting.seeds):
            methods = (DENSE, *(m for m in setting.methods[task] if m in (arguments.methods or [m])))
            jobs += [Job(setting.name, task, method, seed, arguments.data, arguments.folder) for method in methods]
    return jobs


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    known = sorted({method for setting in SETTINGS.values() for ms in setting.methods.values() for method in ms})
    parser = argparse.ArgumentParser(
        prog="bench.evidence", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    near = ROOT.parent / "shared" / "data"
    parser.add_argument("--setting", choices=SETTINGS, default="small", help="small fits two cores, full wants a GPU")
    parser.add_argument("--tasks", nargs="+", choices=SETTINGS["full"].methods, metavar="TASK", help="only these")
    parser.add_argument("--methods", nargs="+", choices=known, metavar="METHOD", help="only these")
    parser.add_argument("--seeds", type=int, metavar="N", help="seeds 0 to N - 1; 3 unless told")
    parser.add_argument("--workers", type=int, default=cpu_count() or 1, metavar="N", help="chains at a time")
    parser.add_argument("--data", type=Path, default=near, metavar="DIR", help="where the volumes are")
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "evidence-run", metavar="DIR", help="for trained networks"
    )
    parser.add_argument("--csv", type=Path, default=rows.RESULTS, metavar="FILE", help="where rows are added")
    parser.add_argument("--latency", type=Path, default=latency.RESULTS, metavar="FILE", help="where times go")
    parser.add_argument("--only", choices=("train", "time", "page"), help="one part of the work")
    arguments = parser.parse_args(argv)
    for name in ("seeds", "workers"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            parser.error(f"--{name}: {value}; accepted are whole numbers from 1")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    return arguments


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\nevidence: stopped; the same command goes on with what is missing", file=sys.stderr)
        sys.exit(130)
