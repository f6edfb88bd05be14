"""`python -m bench.cpu`."""

from bench.command import guarded

if __name__ == "__main__":
    guarded("bench.cpu", "bench.cpu.command")
