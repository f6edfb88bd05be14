"""The command line: `lrw compress`, `lrw export`. Results go to stdout, all else to stderr.

Exit codes: 0 done, 1 failed, 2 refused (the message says what was not accepted), 130 stopped by Ctrl-C.
"""

import argparse
import sys
from collections.abc import Sequence

from lrw.commands import compress, export
from lrw.version import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command `argv` names (default: the process's own); returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except (ValueError, OSError, ImportError) as error:
        print(f"lrw {arguments.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nlrw {arguments.command}: stopped; {arguments.stopped}", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
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
