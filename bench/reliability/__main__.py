"""`python -m bench.reliability`."""

from bench.command import guarded

if __name__ == "__main__":
    guarded("reliability", "bench.reliability.command", "stopped; nothing was added to the table")
