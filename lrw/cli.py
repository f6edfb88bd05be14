"""The command line: `lrw compress`, `lrw export`. Results go to stdout, all else to stderr.

Exit codes: 0 done, 1 failed, 2 refused (the message says what was not accepted), 130 stopped by Ctrl-C.
"""

import argparse
import sys
from collections.abc import Sequence

from lrw.version import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command `argv` names (default: the process's own); returns the exit code."""
    command, stopped = "lrw", "nothing was begun"
    try:
        arguments = _parser().parse_args(argv)
        command, stopped = f"lrw {arguments.command}", arguments.stopped
        return int(arguments.run(arguments))
    except (ValueError, OSError, ImportError) as error:
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


def _is_of_memory(error: Exception) -> bool:
    """Whether Python, numpy or torch had not enough; torch on the CPU has no class for it."""
    return isinstance(error, MemoryError) or "allocate memory" in str(error) or "out of memory" in str(error)


def _parser() -> argparse.ArgumentParser:
    from lrw.commands import compress, export  # within reach of main's handlers

    parser = argparse.ArgumentParser(
        prog="lrw", description="Fast 3D convolutional networks through the Winograd domain."
    )
    parser.add_argument("--version", action="version", version=f"lrw {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    compress.add(commands)
    export.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
