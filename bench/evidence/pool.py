"""Chains side by side: a process each, of one thread, which on small networks does more than two threads on one."""

import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from threading import Thread
from time import perf_counter

import torch

from bench import certificate
from bench.evidence import chain
from bench.evidence.chain import DENSE, Found, Job
from bench.evidence.tables import Tables
from bench.rows import Writer


def train(jobs: Sequence[Job], tables: Tables, workers: int) -> bool:
    """Run the `jobs` that `tables` do not hold yet, dense networks first; rows are added chain by chain.

    Returns whether all went well; the error of a chain that did not is printed, the others go on.
    """
    done = {row.chain for row in tables.rows}
    # A dense network that is in the table but not in the folder is trained again: the methods start from it.
    dense = [job for job in jobs if job.method == DENSE and not (job.chain in done and job.network(0.0).exists())]
    methods = [job for job in jobs if job.method != DENSE and job.chain not in done]
    keep = partial(_keep, tables, certificate.stamp())  # of the code that workers start with
    with ProcessPoolExecutor(workers, get_context("spawn"), _start_worker) as pool:
        try:
            well = _run(pool, dense, keep, done)
            return _run(pool, methods, keep, done) and well
        except KeyboardInterrupt:
            processes = list(pool._processes.values())  # shutdown forgets them
            pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.terminate()
            raise


def _run(
    pool: ProcessPoolExecutor, jobs: list[Job], keep: Callable[[Found], None], done: set[tuple[str, str, str, int]]
) -> bool:
    begin, well = perf_counter(), True
    futures: dict[Future[Found], Job] = {pool.submit(chain.run, job): job for job in jobs}
    for count, future in enumerate(as_completed(futures), 1):
        job = futures[future]
        where = f"{count}/{len(jobs)} {perf_counter() - begin:6.0f} s  {job.task} {job.method} seed {job.seed}:"
        error = future.exception()
        if error is not None:
            print(where, "failed", file=sys.stderr)
            traceback.print_exception(error)
            well = False
            continue
        found = future.result()
        if job.chain not in done:
            keep(found)
        print(where, f"{found.rows[0].metric}", *(f"{row.value:.4f}" for row in found.rows), flush=True)
    return well


def _keep(tables: Tables, stamp: dict[str, str], found: Found) -> None:
    """Outcomes first: rows say that a chain is done."""
    tables.outcomes.add(found.outcomes)
    for path, rows in ((tables.curves_file, found.curve), (tables.rows_file, found.rows)):
        with Writer(path, stamp, add=True) as writer:
            if rows:
                writer.write(*rows)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, who ends the others
    Thread(target=_end_with, args=(parent_process(),), daemon=True).start()
    torch.set_num_threads(1)


def _end_with(parent: BaseProcess | None) -> None:
    """Nothing goes on for a parent that was killed."""
    if parent is not None:
        parent.join()
        os._exit(1)
