"""`python -m bench.gpu`."""

import os
import sys

from bench.command import guarded

if __name__ == "__main__":
    if "--dry" in sys.argv:  # read when triton is imported
        os.environ["TRITON_INTERPRET"] = "1"
    guarded("bench_gpu", "bench.gpu.command")
