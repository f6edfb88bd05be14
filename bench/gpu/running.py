"""Go through the plan while there is time: rows as they come, tables last."""

import time
import warnings
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import triton

from bench import certificate
from bench.gpu import compiled, page, plan, speedups
from bench.gpu.clock import Clock, forget
from bench.gpu.measure import GRAPHS, Bench
from bench.gpu.rows import Row
from bench.rows import Writer

COMPILING = 0.3  # of the minutes, at most


@dataclass
class Done:
    """What was measured, the titles of what was not, and whether the run was stopped."""

    rows: list[Row] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    stopped: bool = False

    @property
    def status(self) -> int:
        """The exit code."""
        return 130 if self.stopped else int(any(row.failed for row in self.rows))


def run(options: Namespace, device: torch.device) -> int:
    """Compile, measure, print, write; returns the exit code."""
    begin, done, stamp = time.monotonic(), Done(), _stamp(options, device)
    warnings.filterwarnings("ignore")  # between the rows: of deterministic fills, of settings that torch renamed
    print(f"{certificate.line(stamp)} | seed {torch.seed()}", flush=True)
    torch.backends.cudnn.benchmark = not options.dry
    steps = plan.steps(options.layers, options.precisions, options.dry)
    with Writer(options.csv, stamp) as writer:

        def record(row: Row) -> None:
            done.rows.append(row)
            writer.write(row)
            print(f"{time.monotonic() - begin:5.0f} s  {row.line}", flush=True)

        try:
            steps = _compiled(options, steps)
            bench = Bench(Clock(device, options.seconds))
            go(steps, bench, record, done.missing, lambda: time.monotonic() - begin > 60 * options.minutes)
        except KeyboardInterrupt:
            done.stopped = True
    print(*_summary(options, done), sep="\n")
    if options.table and not (options.dry or done.stopped):
        count = speedups.rewrite(options.table, done.rows, stamp["machine"], stamp["date"])
        print(f"{count} measured rows in {options.table}")
    return done.status


def go(
    steps: Sequence[plan.Step],
    bench: Bench,
    record: Callable[[Row], None],
    missing: list[str],
    late: Callable[[], bool],
) -> None:
    """Every step, until it is late or the GPU answers no more; one that fails is recorded with its reason."""
    for at, step in enumerate(steps):
        if late():
            missing += [step.title for step in steps[at:]]
            return
        try:
            for row in step.rows(bench):
                record(row)
        except Exception as error:
            record(Row(step.title, note=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"))
            if not _answers(bench):
                missing += [step.title for step in steps[at + 1 :]]
                return
        finally:
            forget()


def _compiled(options: Namespace, steps: list[plan.Step]) -> list[plan.Step]:
    """The steps, those last whose kernels take longer to compile than there is time for."""
    count = compiled.processes() if options.processes is None else options.processes
    if options.dry or count == 0:
        return steps
    begin, jobs = time.monotonic(), [job for job in dict.fromkeys(step.job for step in steps) if job]
    late = compiled.late(jobs, count, COMPILING * 60 * options.minutes)
    print(f"compiled {len(jobs) - len(late)} of {len(jobs)} jobs in {time.monotonic() - begin:.0f} s", flush=True)
    return sorted(steps, key=lambda step: step.job in late)


def _answers(bench: Bench) -> bool:
    if bench.clock.dry:
        return True
    try:
        torch.cuda.synchronize(bench.clock.device)
    except RuntimeError:
        return False
    return True


def _summary(options: Namespace, done: Done) -> list[str]:
    """Why rows have no numbers, tables of passes, the bars."""
    lines = page.notes(done.rows)
    for kind in (*GRAPHS.values(), "training", *reversed(GRAPHS)):
        if any(row.kind == kind for row in done.rows):
            lines += ["", f"{kind}:", "", *page.passes(done.rows, kind)]
    lines += ["", *page.bar_table(done.rows), ""]
    lines += [f"not measured, time was up: {', '.join(done.missing)}"] if done.missing else []
    lines += ["a dry run: errors are real, nothing was timed"] if options.dry else []
    return lines + (["stopped; what was measured until then is above"] if done.stopped else [])


def _stamp(options: Namespace, device: torch.device) -> dict[str, str]:
    machine, versions = "Triton's interpreter", f"triton {triton.__version__}"
    if not options.dry:
        machine = torch.cuda.get_device_name(device)
        versions += f", CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    stamp = certificate.stamp(machine, versions)
    return stamp | ({"commit": options.commit} if options.commit else {})
