"""The laws about arguments and files, with many random examples each; Hypothesis counts them."""

import re
import subprocess
import sys
from time import monotonic

from bench.reliability.rows import Row

LAWS = {
    "arguments of public functions": ["verify/laws/test_arguments.py"],
    "damaged data files": ["verify/laws/test_readers.py"],
    "damaged networks, manifests and plans": [
        "verify/laws/test_damaged_checkpoints.py",
        "verify/laws/test_damaged_manifests.py",
    ],
}
_COUNTS = re.compile(r"- (\d+) passing(?: examples)?, (\d+) failing")


def fuzz(what: str) -> Row:
    """Run the laws of that name. Raises RuntimeError with what pytest said where it counted nothing."""
    begin = monotonic()
    options = ["-q", "-p", "no:cacheprovider", "--hypothesis-profile=nightly", "--hypothesis-show-statistics"]
    command = [sys.executable, "-m", "pytest", *LAWS[what], *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    counts = [tuple(map(int, found)) for found in _COUNTS.findall(done.stdout)]
    if not counts:
        raise RuntimeError(f"pytest counted no example:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    passed, failed = map(sum, zip(*counts, strict=True))
    if failed or done.returncode:
        print(done.stdout[-10_000:], file=sys.stderr)
    return Row(what, (monotonic() - begin) / 60, passed + failed, max(failed, int(done.returncode != 0)))
