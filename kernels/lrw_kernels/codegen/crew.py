"""Many kernels at once: other processes compile some of them, since threads take turns at Python's lock and Numba's.

A process that compiles is started when several kernels are missing, gets them one by one through a pipe, leaves each on
disk, and ends when it was not needed for a while. Where nothing is kept on disk, or no process can be started, this one
compiles everything by itself.
"""

import atexit
import json
import os
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread

from lrw_kernels.codegen.kernel import Kernel

ENOUGH = 4  # missing kernels, at a second each, that a process is worth starting for: it takes a second itself
IDLE = 20.0  # seconds after which one ends that nobody needs
SOON = 5.0  # seconds in which a thread is through whose helper was killed
PATIENCE = 60.0  # seconds that its last kernel is waited for, when all others are there
_COMPILERS = "LRW_COMPILERS"  # how many processes compile at a time, this one included; by default one a core
_SERVE = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from lrw_kernels.codegen.crew import serve; serve()"
_idle: deque["subprocess.Popen[str]"] = deque()  # processes that wait for kernels


@atexit.register
def _end() -> None:
    """Processes that wait have nothing to wait for any more."""
    while _idle:
        helper = _idle.pop()
        helper.kill()
        _reap(helper)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)  # they are the parent's


def compile_all(kernels: Sequence[Kernel]) -> None:
    """Have those of `kernels` that are missing here and on disk on disk, or as many as the helpers come to beside this
    process, which compiles the others. Ctrl-C ends all of them."""
    missing = deque(kernel for kernel in dict.fromkeys(kernels) if kernel.lacking)
    helpers = _helpers(len(missing))
    sending = [Thread(target=_send, args=(helper, missing), daemon=True) for helper in helpers]
    try:
        for thread in sending:
            thread.start()
        with suppress(IndexError):
            while True:
                missing.popleft().address  # noqa: B018  compiled here
        for thread in sending:
            thread.join(PATIENCE)
    finally:
        missing.clear()
        for helper, thread in zip(helpers, sending, strict=True):
            if thread.is_alive():  # something went wrong here or there, or somebody interrupts
                helper.kill()
                thread.join(SOON)
            _idle.append(helper) if helper.poll() is None else _reap(helper)


def _helpers(missing: int) -> list["subprocess.Popen[str]"]:
    """Processes that compile beside this one: those that wait, and new ones where there is enough for them to do."""
    helpers, most = list["subprocess.Popen[str]"](), min(_most() - 1, missing - 1)
    while len(helpers) < most and _idle:
        with suppress(IndexError):
            helper = _idle.pop()
            helpers.append(helper) if helper.poll() is None else _reap(helper)
    try:
        while len(helpers) < min(most, missing // ENOUGH):
            helpers.append(_started())
    except OSError:  # no more processes for us
        pass
    return helpers


def _most() -> int:
    """How many processes may compile at a time; one where we do not know how to start others."""
    if not Path(sys.executable or "").name.startswith("python"):  # an application that has Python inside
        return 1
    chosen = os.environ.get(_COMPILERS, "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return int(chosen) if chosen.isdecimal() else cores


def _started() -> "subprocess.Popen[str]":
    """A process that compiles. It has our modules, and not Ctrl-C, which is for us to pass on."""
    path = json.dumps([os.path.abspath(entry) for entry in sys.path])
    return subprocess.Popen(
        [sys.executable, "-I", "-c", _SERVE, path],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True,
    )  # fmt: skip


def _send(helper: "subprocess.Popen[str]", missing: deque[Kernel]) -> None:
    """Give `helper` one missing kernel after another; what it does not come to, because it died, is missing again."""
    to, come = helper.stdin, helper.stdout
    assert to is not None
    assert come is not None
    with suppress(IndexError):  # nothing is missing any more
        while True:
            kernel, done = missing.pop(), ""
            with suppress(OSError):  # a broken pipe
                to.write(json.dumps([kernel.text, kernel.count]) + "\n")
                to.flush()
                done = come.readline()
            if not done:
                missing.append(kernel)
                helper.kill()
                helper.wait()
                return


def _reap(helper: "subprocess.Popen[str]") -> None:
    """Close the pipes of `helper`, which ends or has ended."""
    helper.communicate()


def serve() -> None:
    """The process that compiles: kernels from standard input, a line to standard output for each that is kept."""
    from select import select

    from lrw_kernels.codegen import compile as numba_comes  # noqa: F401  before there is anything to do

    while select([sys.stdin], [], [], IDLE)[0] and (line := sys.stdin.readline()):
        text, count = json.loads(line)
        maker, *arguments = json.loads(text)
        Kernel(maker, tuple(arguments), count).keep()
        sys.stdout.write("kept\n")
        sys.stdout.flush()
