"""`python -m bench.evidence`."""

from bench.command import guarded

if __name__ == "__main__":
    guarded("evidence", "bench.evidence.command", "stopped; the same command goes on with what is missing")
