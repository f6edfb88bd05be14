"""`python -m bench.overview`."""

from bench.command import guarded

if __name__ == "__main__":
    guarded("overview", "bench.overview.command", "stopped; nothing was written")
