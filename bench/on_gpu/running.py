"""Go through the plan while there is time: rows as they come, tables last."""

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import triton
from rich.console import Console

from bench.certificate import commit, today
from bench.on_gpu import compiled, plan, speedups, table, tunings
from bench.on_gpu.clock import Clock, forget_quietly, quiet
from bench.on_gpu.command import Options
from bench.on_gpu.measure import Bench
from bench.on_gpu.rows import Row, Writer
from lrw.version import __version__
from lrw_kernels.triton import choose

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


def run(options: Options) -> int:
    """Compile, measure, print, write; returns the exit code."""
    begin = time.monotonic()
    stamp = _stamp(options)
    quiet()
    print(f"{' | '.join(stamp)} | seed {torch.seed()}", flush=True)
    torch.backends.cudnn.benchmark = not options.dry
    if options.sweep:
        steps = plan.sweeps(options.layers, options.precisions)
    else:
        steps = plan.steps(options.layers, options.precisions, options.dry)
    done = Done()
    with Writer(options.csv, stamp) as writer:

        def record(row: Row) -> None:
            done.rows.append(row)
            writer.write(row)
            print(f"{time.monotonic() - begin:5.0f} s  {line(row)}", flush=True)

        try:
            steps = _compiled(options, steps)
            bench = Bench(Clock(options.device, options.seconds))
            go(steps, bench, record, done.missing, lambda: time.monotonic() - begin > 60 * options.minutes)
        except KeyboardInterrupt:
            done.stopped = True
    _show(options, done)
    if not (options.dry or done.stopped):
        _write(options, done.rows, stamp[0], stamp[3])
    return done.status


def _write(options: Options, rows: Sequence[Row], device: str, date: str) -> None:
    """The tables that dispatch reads."""
    if options.table:
        print(f"{speedups.rewrite(options.table, rows, device, date)} measured rows in {options.table}")
    if options.sweep:
        capability = choose.capability(options.device)
        print(f"{tunings.rewrite(options.sweep, rows, capability, device, date)} rows in {options.sweep}")


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
            for row in step.run(bench):
                record(row)
        except Exception as error:
            record(Row(step.title, note=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"))
            if not _answers(bench):
                missing += [step.title for step in steps[at + 1 :]]
                return
        finally:
            forget_quietly()


def line(row: Row) -> str:
    """A row as text."""
    what = " ".join(word for word in (row.kind, row.layer, row.precision, row.tile[2:7], row.form) if word)
    share = "" if row.columns is None else f" {row.columns:.0%}"
    numbers = [(row.ms, ".3f", " ms"), (row.cudnn_ms, ".3f", " ms cuDNN"), (row.speedup, ".2f", "x"),
               (row.floor_ms, ".3f", " ms floor"), (row.rate, ".3g", "/s"), (row.of_ceiling, ".0%", ""),
               (row.error, ".1e", " error"), (row.mib, ".0f", " MiB"),
               (row.cudnn_mib, ".0f", " MiB cuDNN")]  # fmt: skip
    shown = [f"{value:{form}}{unit}" for value, form, unit in numbers if value is not None]
    return ", ".join([what + share, *shown, *([row.note] if row.note else [])])


def _compiled(options: Options, steps: list[plan.Step]) -> list[plan.Step]:
    """The steps, those last whose kernels take longer to compile than there is time for."""
    count = compiled.processes() if options.processes is None else options.processes
    if options.dry or count == 0:
        return steps
    begin, jobs = time.monotonic(), plan.jobs(steps)
    found = compiled.compile_all(jobs, count, COMPILING * 60 * options.minutes)
    took = time.monotonic() - begin
    print(f"compiled {len(found.done)} of {len(jobs)} jobs in {took:.0f} s, {len(found.late)} late", flush=True)
    return sorted(steps, key=lambda step: step.job in found.late)


def _answers(bench: Bench) -> bool:
    if bench.clock.dry:
        return True
    try:
        torch.cuda.synchronize(bench.clock.device)
    except RuntimeError:
        return False
    return True


def _show(options: Options, done: Done) -> None:
    console = Console(width=max(Console().width, table.WIDTH))
    for note in table.notes(done.rows):
        console.print(note, markup=False, highlight=False)
    for one in table.tables(done.rows):
        console.print(one)
    if done.missing:
        console.print(f"not measured, time was up: {', '.join(done.missing)}", markup=False, highlight=False)
    if options.dry:
        console.print("a dry run: errors are real, nothing was timed")
    if done.stopped:
        console.print("stopped; what was measured until then is above")


def _stamp(options: Options) -> tuple[str, str, str, str]:
    """Device, commit, versions, date."""
    versions = f"python {platform.python_version()}, torch {torch.__version__}, triton {triton.__version__}"
    if options.dry:
        device = "Triton's interpreter"
    else:
        device = torch.cuda.get_device_name(options.device)
        versions += f", CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    return device, options.commit or commit(), f"{versions}, lrw {__version__}", today()
