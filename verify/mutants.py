"""Do tests see faults? `python -m verify.mutants` makes small ones in a copy of the sources, one at a time, and runs
the tests of what was changed. They are cosmic-ray's: operators exchanged, constants changed, conditions turned around.

Exit codes: 0 at least MOST of the mutants of each part died, 1 fewer, 2 wrong arguments.
"""

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

ROOT = Path(__file__).parents[1]
_LRW = "verify/unit/lrw"
PARTS = {
    "winograd": (
        "kernels/lrw_kernels/winograd",
        f"verify/laws/test_transforms.py verify/unit/winograd {_LRW}/test_ops.py verify/unit/cpu/test_choice.py",
    ),
    "pruning": (
        "lrw/pruning",
        "verify/laws/test_columns.py verify/laws/test_compensation.py "
        f"{_LRW}/test_pruning.py {_LRW}/test_prune.py {_LRW}/test_prune_networks.py {_LRW}/test_prune_plans.py "
        f"{_LRW}/test_prune_resume.py {_LRW}/test_prune_weighing.py {_LRW}/test_weight_pruning.py "
        f"{_LRW}/test_granularity.py {_LRW}/test_schedule.py",
    ),
    "program": (
        "kernels/lrw_kernels/program",
        f"verify/programs/test_in_process.py verify/unit/cpu/test_plan.py {_LRW}/test_accelerate.py",
    ),
}
"""Where mutants are made, and the tests that should see them."""

LEFT_OUT = ("Variable", "BitOr")  # operators that want names, and that change annotations, which any import sees
PLACES = 40  # of a file that an operator is drawn from; where there are fewer, another is drawn
COPIED = ("kernels", "lrw", "verify", "bench", "docs", "README.md", "pyproject.toml")
MOST = 0.9  # of the mutants should die
PATIENCE = 3.0  # times the tests' own time; whoever takes longer is dead


@dataclass(frozen=True)
class Mutant:
    """A changed file: its path in the repository, its text, and the change as a diff."""

    path: Path
    text: str
    change: str


def mutants(folder: str, seed: int) -> Iterator[Mutant]:
    """Mutants of the files of a folder, in an order drawn from the seed, without an end while there are any."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator, operator_names

    drawn, files = random.Random(seed), sorted((ROOT / folder).glob("*.py"))
    names = [name for name in sorted(operator_names()) if not any(word in name for word in LEFT_OUT)]
    while True:
        path, operator = drawn.choice(files), get_operator(drawn.choice(names))()
        before, place = path.read_text(), drawn.randrange(PLACES)
        after = mutate_code(before, operator, place)
        if after is not None and after != before:
            yield Mutant(path.relative_to(ROOT), after, _change(before, after, path))


def _change(before: str, after: str, path: Path) -> str:
    pairs = zip(before.splitlines(), after.splitlines(), strict=False)
    number, (old, new) = next((i, pair) for i, pair in enumerate(pairs, 1) if pair[0] != pair[1])
    return f"{path.relative_to(ROOT)}:{number}\n  - {old.strip()}\n  + {new.strip()}"


def survives(mutant: Mutant, copy: Path, tests: list[str], limit: float) -> bool:
    """Whether the tests pass with the mutant in the place of its file."""
    place = copy / mutant.path
    kept = place.read_text()
    place.write_text(mutant.text)
    try:
        return _passes(copy, tests, limit)
    finally:
        place.write_text(kept)


def _passes(copy: Path, tests: list[str], limit: float | None) -> bool:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", "not slow", *tests]
    try:
        return subprocess.run(command, cwd=copy, capture_output=True, check=False, timeout=limit).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def sample(part: str, count: int, seed: int, copy: Path) -> float:
    """The share of `count` mutants of a part that die; says which live. Raises RuntimeError where the tests fail as
    they are."""
    folder, names = PARTS[part]
    tests, begin = names.split(), monotonic()
    if not _passes(copy, tests, None):
        raise RuntimeError(f"{part}: its tests fail without a mutant")
    limit = 60 + PATIENCE * (monotonic() - begin)
    dead = 0
    for number, mutant in zip(range(1, count + 1), mutants(folder, seed), strict=False):
        lives = survives(mutant, copy, tests, limit)
        dead += not lives
        print(f"{part} {number}/{count}: {'LIVES ' if lives else 'dies  '} {mutant.change}", flush=True)
    print(f"{part}: {dead} of {count} died")
    return dead / count


def main(argv: list[str] | None = None) -> int:
    """Sample the parts that are asked for."""
    parser = argparse.ArgumentParser("verify.mutants", description=__doc__, allow_abbrev=False)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--count", type=int, default=40, help="mutants of each part (default: 40)")
    parser.add_argument("--seed", type=int, default=0, help="which ones (default: 0)")
    arguments = parser.parse_args(argv)
    unknown = [part for part in arguments.parts if part not in PARTS]
    if unknown or arguments.count < 1:
        parser.error(
            f"{unknown[0]!r}; accepted are {', '.join(PARTS)}" if unknown else "--count: accepted is 1 or more"
        )
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in COPIED:
            source = ROOT / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, copy / name)
        shares = [sample(part, arguments.count, arguments.seed, copy) for part in arguments.parts or PARTS]
    return int(min(shares) < MOST)


if __name__ == "__main__":
    sys.exit(main())
