"""Run a guest program under QEMU with one of the two plugins, and read what the plugin saw."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self, TypeVar

from bench.arm.program import CPU, Program
from bench.arm.tools import call, require
from lrw_kernels.codegen.store import private_folder

HERE = Path(__file__).parent
TOOLS = ("gcc", "qemu-aarch64")
_FLAGS = ("-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC")
_WORD = 4  # bytes of an instruction


@dataclass(frozen=True)
class Misses:
    """Accesses and stores, one of 16 bytes being two to QEMU; lines of 64 bytes missed in each level, written back."""

    accesses: int
    stores: int
    l1: int
    l2: int
    written_back: int

    @classmethod
    def parse(cls, words: Iterable[str]) -> Self:
        """From name=number words. Raises TypeError unless they are exactly the fields."""
        return cls(**{name: int(number) for name, _, number in (word.partition("=") for word in words)})

    def __sub__(self, other: Self) -> Self:
        return type(self)(**{f.name: getattr(self, f.name) - getattr(other, f.name) for f in fields(self)})


@dataclass(frozen=True)
class Block:
    """Straight-line code: how often it ran, from where, its A64 words."""

    count: int
    words: tuple[int, ...]
    address: int = 0

    @property
    def end(self) -> int:
        """The address behind it."""
        return self.address + _WORD * len(self.words)


@dataclass(frozen=True)
class Region:
    """What ran between two marks; in a difference of regions some blocks ran less often than never."""

    all_blocks: tuple[Block, ...]

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Those that ran."""
        return tuple(block for block in self.all_blocks if block.count > 0)

    @property
    def total(self) -> int:
        """How many instructions."""
        return sum(block.count * len(block.words) for block in self.all_blocks)

    def count(self, is_counted: Callable[[int], bool]) -> int:
        """How many of them are counted, by their words (see `words`)."""
        return sum(block.count * sum(map(is_counted, block.words)) for block in self.all_blocks)

    def __sub__(self, other: Self) -> "Region":
        """What ran here more often than there."""
        times = {(block.address, block.words): -block.count for block in other.all_blocks}
        for block in self.all_blocks:
            times[block.address, block.words] = times.get((block.address, block.words), 0) + block.count
        return Region(tuple(Block(n, words, address) for (address, words), n in sorted(times.items()) if n))


Numbers = TypeVar("Numbers", Region, Misses)


def count(program: Program, *, cpu: str = CPU, limit: float | None = None) -> dict[int, Region]:
    """Executed blocks by region: exact for one thread, and repeatable. `cpu` is QEMU's name, `limit` in seconds.

    Raises RuntimeError where a tool is missing or the program fails or takes longer.
    """
    return parse_counts(_run(program, "counter", cpu, limit))


def misses(program: Program, *, cpu: str = CPU, limit: float | None = None) -> dict[int, Misses]:
    """Lines that miss in the modelled caches, by region. `cpu`, `limit` and errors as in `count`.

    Repeatable where the program's memory is: a peer's moves a little with the name of its folder, its misses by 1 %.
    """
    return parse_misses(_run(program, "cache", cpu, limit))


def one_run(regions: dict[int, Numbers]) -> Numbers:
    """What one run of a `Program` takes. Raises RuntimeError where a region is missing."""
    if not {1, 2} <= regions.keys():
        raise RuntimeError(f"regions {sorted(regions)} were marked; a program marks 1 and 2")
    return regions[2] - regions[1]


def parse_counts(text: str) -> dict[int, Region]:
    """The regions in what `counter.c` writes; blocks translated more than once are put together."""
    blocks: dict[int, dict[tuple[int, tuple[int, ...]], int]] = {}
    for kind, tag, words in _records(text):
        own = blocks.setdefault(tag, {})
        if kind == "block":
            key = int(words[0], 16), tuple(int(word, 16) for word in words[2:])
            own[key] = own.get(key, 0) + int(words[1])
    return {
        tag: Region(tuple(Block(n, words, address) for (address, words), n in sorted(found.items())))
        for tag, found in blocks.items()
    }


def parse_misses(text: str) -> dict[int, Misses]:
    """The regions in what `cache.c` writes."""
    return {tag: Misses.parse(words) for _, tag, words in _records(text)}


def cache_folder() -> Path:
    """Where plugins and peers are kept: $LRW_BENCH_CACHE, or lrw-bench in the user's cache; made where it is missing.

    What lies there is run. Raises OSError where that is not a folder only this user may write to.
    """
    return private_folder(_chosen_folder())


def probe_cache() -> None:
    """Make the cache folder. Raises OSError, with its place, where nothing can be written into it or others could."""
    try:
        with TemporaryDirectory(dir=cache_folder()):
            pass
    except OSError as error:
        raise OSError(f"cache folder {_chosen_folder()} (LRW_BENCH_CACHE): {error.strerror}") from error


def _chosen_folder() -> Path:
    return Path(os.environ.get("LRW_BENCH_CACHE") or Path.home() / ".cache" / "lrw-bench").absolute()


def plugin(name: str) -> Path:
    """The compiled plugin "counter" or "cache", built where its source was not built yet.

    Raises RuntimeError where there is no compiler, or it fails.
    """
    source = HERE / f"{name}.c"
    key = hashlib.sha256(source.read_bytes() + (HERE / "plugin.h").read_bytes()).hexdigest()[:16]
    built = cache_folder() / "plugins" / f"{name}-{key}.so"
    if not built.exists():
        built.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=built.parent) as folder:
            draft = Path(folder, built.name)
            call(["gcc", *_FLAGS, "-o", draft, source])
            draft.replace(built)
    return built


def _run(program: Program, name: str, cpu: str, limit: float | None) -> str:
    require(*TOOLS)
    root = ["-L", str(program.sysroot)] if program.sysroot else []
    guest = [word for item in sorted(program.environment.items()) for word in ("-E", "=".join(item))]
    with TemporaryDirectory(prefix="lrw-bench-") as folder:
        report = Path(folder, "report")
        command = ["qemu-aarch64", "-cpu", cpu, "-plugin", f"{plugin(name)},out={report}", *root, *guest]
        # The guest sees no variable of this shell: their number alone moves its stack.
        host = {"PATH": os.environ.get("PATH", os.defpath)}
        call([*command, *program.argv], folder=program.folder, environment=host, limit=limit)
        return report.read_text()


def _records(text: str) -> Iterator[tuple[str, int, list[str]]]:
    for line in text.splitlines():
        kind, tag, *words = line.split()
        yield kind, int(tag), words
