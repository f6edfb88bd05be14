"""`python bench/gpu.py`, or `python -m bench.gpu`: the command, with Ctrl-C understood while its imports still run."""

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    if not __package__:  # run by its path: what is beside it are no modules to import by their bare names
        sys.path[0] = str(Path(__file__).resolve().parents[1])
    if "--dry" in sys.argv:  # read when triton is imported
        os.environ["TRITON_INTERPRET"] = "1"
    try:
        from bench.on_gpu.command import main

        status = main()
    except KeyboardInterrupt:
        print("\nbench_gpu: stopped", file=sys.stderr)
        status = 130
    sys.exit(status)
