"""`python -m bench.arm`."""

from bench.command import guarded

if __name__ == "__main__":
    guarded("bench_arm", "bench.arm.command")
