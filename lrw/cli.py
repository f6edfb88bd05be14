"""The command line: `lrw compress`, `prune`, `accelerate`, `export`, `doctor`.

Results go to stdout, all else to stderr.

Exit codes: 0 done, 1 failed (also where the disk is full, or nobody reads what is printed), 2 refused (the message says
what was not accepted, or which file is not there), 130 stopped by Ctrl-C. The second Ctrl-C is ignored while things are
put away, the third ends that too.
"""

import argparse
import errno
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from threading import current_thread, main_thread

from lrw.version import __version__

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command `argv` names (default: the process's own); returns the exit code."""
    with _first_interrupt():
        try:
            try:
                return _answer(argv)
            finally:
                if sys.stdout is not None:  # it may be closed
                    sys.stdout.flush()  # what cannot be printed is said here, not while Python leaves
        except OSError as error:
            _leave_stdout()
            if not isinstance(error, BrokenPipeError):
                print(f"lrw: standard output: {error.strerror}", file=sys.stderr)
            return 1


def _answer(argv: Sequence[str] | None) -> int:
    command, stopped = "lrw", "nothing was begun"
    try:
        arguments = _parser().parse_args(argv)
        command, stopped = f"lrw {arguments.command}", arguments.stopped
        return int(arguments.run(arguments))
    except BrokenPipeError:
        raise
    except (ValueError, OSError, ImportError) as error:
        if isinstance(error, OSError) and error.errno in _FULL:
            if error.filename is None:  # files are named: it was printing
                raise
            print(f"{command}: {error}; {stopped}", file=sys.stderr)
            return 1
        print(f"{command}: {error}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not _is_of_memory(error):
            raise
        reason = (str(error).splitlines() or ["no more is known"])[0]
        print(f"{command}: out of memory ({reason})", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\n{command}: stopped; {stopped}", file=sys.stderr)
        return 130


@contextmanager
def _first_interrupt() -> Iterator[None]:
    """Only the first Ctrl-C raises KeyboardInterrupt; what it sets going is not interrupted by the second."""
    pressed = count(1)

    def on_signal(*_: object) -> None:
        times = next(pressed)
        if times == 1:
            raise KeyboardInterrupt
        if times > 2:
            os._exit(130)

    ours = current_thread() is main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, on_signal)
    try:
        yield
    finally:
        if ours and next(pressed) == 1:  # otherwise the process is about to leave
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave_stdout() -> None:
    """Nothing more is printed, nor tried when Python leaves."""
    with suppress(OSError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_of_memory(error: Exception) -> bool:
    """Whether Python, numpy or torch had not enough; torch on the CPU has no class for it."""
    return isinstance(error, MemoryError) or "allocate memory" in str(error) or "out of memory" in str(error)


def _parser() -> argparse.ArgumentParser:
    from lrw.commands import accelerate, compress, doctor, export, prune  # within reach of main's handlers

    parser = argparse.ArgumentParser(
        allow_abbrev=False, prog="lrw", description="Fast 3D convolutional networks through the Winograd domain."
    )
    parser.add_argument("--version", action="version", version=f"lrw {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    compress.add(commands)
    prune.add(commands)
    export.add(commands)
    accelerate.add(commands)
    doctor.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
