"""Train every method on every task, time what came of it, write the page: `nox -s evidence`.

Networks, tables, page and figures go to one folder. Chains that its table holds are not trained again: an interrupted
run goes on, another folder starts over. Methods whose packages are not installed are left out, and said. Exit codes: 0
done, 1 a chain failed, 2 wrong arguments or no data, 130 stopped by Ctrl-C.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence
from os import cpu_count
from pathlib import Path

import torch

from bench.command import Parser, checked, count
from bench.evidence import latency, page, pool
from bench.evidence.chain import DENSE, Job
from bench.evidence.methods import without_packages
from bench.evidence.settings import ONE_SEED, SEEDS, SETTINGS, Setting
from bench.evidence.tables import Tables
from bench.evidence.tasks import missing

ROOT = Path(__file__).parents[2]


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is asked for."""
    arguments = _arguments(argv)
    setting, tables = SETTINGS[arguments.setting], Tables(arguments.folder)
    jobs = _jobs(arguments, setting)
    if not jobs:
        print("evidence: no task has its data", file=sys.stderr)
        return 2
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if arguments.only in (None, "train") and not pool.train(jobs, tables, arguments.workers):
        return 1
    if not tables.rows_file.exists():
        print(f"evidence: no table {tables.rows_file} yet; train first", file=sys.stderr)
        return 2
    if arguments.only in (None, "time"):
        latency.measure(Tables(arguments.folder), setting, arguments.data)
    if arguments.only != "train":
        print(page.write(Tables(arguments.folder), arguments.folder))
    return 0


def _jobs(arguments: Namespace, setting: Setting) -> list[Job]:
    """By task, seed by seed, so that what is interrupted has whole seeds."""
    jobs = []
    for task in arguments.tasks or setting.methods:
        reason = missing(task, arguments.data)
        if reason is not None:
            print(f"{task}: left out, {reason}; --data names the folder", file=sys.stderr)
            continue
        methods = [DENSE]
        for method in (m for m in setting.methods[task] if m in (arguments.methods or [m])):
            reason = without_packages(method)
            if reason is not None:
                print(f"{task} {method}: left out, {reason}", file=sys.stderr)
                continue
            methods.append(method)
        for seed in range(arguments.seeds):
            where = arguments.data, arguments.folder, arguments.device
            jobs += [Job(setting.name, task, method, seed, *where)
                     for method in methods if seed == 0 or method not in ONE_SEED]  # fmt: skip
    return jobs


def _arguments(argv: Sequence[str] | None) -> Namespace:
    known = sorted({method for setting in SETTINGS.values() for ms in setting.methods.values() for method in ms})
    parser, near = Parser("evidence", __doc__), ROOT.parent / "shared" / "data"
    add = parser.add_argument
    add("--setting", choices=SETTINGS, default="small", help="small fits two cores, full wants a GPU")
    add("--tasks", nargs="+", choices=SETTINGS["full"].methods, metavar="TASK", help="only these")
    add("--methods", nargs="+", choices=known, metavar="METHOD", help="only these")
    add("--seeds", type=count(1), default=SEEDS, metavar="N", help=f"seeds 0 to N - 1; {SEEDS} unless told")
    add("--workers", type=count(1), default=cpu_count() or 1, metavar="N", help="chains at a time")
    add("--device", type=_device, default="cpu", help="where networks are trained: cpu, cuda, cuda:1, ...")
    add("--data", type=Path, default=near, metavar="DIR", help="where the volumes are")
    add("--folder", type=Path, default=Path("evidence-run"), metavar="DIR", help="where everything is written")
    add("--only", choices=("train", "time", "page"), help="one part of the work, and the page")
    return parser.parse_args(argv)


@checked
def _device(text: str) -> str:
    try:
        torch.empty(1, device=text)
    except (RuntimeError, AssertionError) as error:  # torch raises either for a device that is not there
        raise ValueError(f"{text!r}: {str(error).splitlines()[0]}") from None
    return text
