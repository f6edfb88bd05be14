"""`python -m bench.arm`: the command, with Ctrl-C understood while its imports, torch among them, still run."""

import sys

if __name__ == "__main__":
    try:
        from bench.arm.command import main

        status = main()
    except KeyboardInterrupt:
        print("\nbench_arm: stopped", file=sys.stderr)
        status = 130
    sys.exit(status)
