"""Train every method on every task, time what came of it, write the page: `nox -s evidence`.

Networks, tables, page and figures go to one folder. Chains that its table holds are not trained again: an interrupted
run goes on, another folder starts over. Exit codes: 0 done, 1 a chain failed, 2 wrong arguments or no data, 130 stopped
by Ctrl-C.
"""

import argparse
import sys
from collections.abc import Sequence
from os import cpu_count
from pathlib import Path

import torch

from bench.evidence import latency, page, pool
from bench.evidence.chain import DENSE, Job
from bench.evidence.settings import SETTINGS, Setting
from bench.evidence.tasks import missing

ROOT = Path(__file__).parents[2]


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is asked for."""
    arguments = _arguments(argv)
    setting, folder = SETTINGS[arguments.setting], arguments.folder
    table, times = folder / "evidence.csv", folder / "evidence_latency.csv"
    jobs = _jobs(arguments, setting)
    if not jobs:
        print("evidence: no task has its data", file=sys.stderr)
        return 2
    folder.mkdir(parents=True, exist_ok=True)
    if arguments.only in (None, "train") and not pool.train(jobs, table, arguments.workers):
        return 1
    if not table.exists():
        print(f"evidence: no table {table} yet; train first", file=sys.stderr)
        return 2
    if arguments.only in (None, "time"):
        latency.measure(table, times, setting, arguments.data, folder)
    print(page.write(table, times, folder))
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
            where = arguments.data, arguments.folder, arguments.device
            jobs += [Job(setting.name, task, method, seed, *where) for method in methods]
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
    parser.add_argument("--device", default="cpu", help="where networks are trained: cpu, cuda, cuda:1, ...")
    parser.add_argument("--data", type=Path, default=near, metavar="DIR", help="where the volumes are")
    parser.add_argument(
        "--folder", type=Path, default=Path("evidence-run"), metavar="DIR", help="where everything is written"
    )
    parser.add_argument("--only", choices=("train", "time", "page"), help="one part of the work, and the page")
    arguments = parser.parse_args(argv)
    for name in ("seeds", "workers"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            parser.error(f"--{name}: {value}; accepted are whole numbers from 1")
    try:
        torch.empty(1, device=arguments.device)
    except (RuntimeError, AssertionError) as error:  # torch raises either for a device that is not there
        parser.error(f"--device: {arguments.device!r}: {str(error).splitlines()[0]}")
    return arguments


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\nevidence: stopped; the same command goes on with what is missing", file=sys.stderr)
        sys.exit(130)
