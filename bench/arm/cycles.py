"""Modelled cycles: LLVM's schedule of each executed block, as a loop of its own, times how often the block ran.

Deterministic, and the same for every party. Loads hit level 1, branches are predicted, blocks do not overlap: short
blocks look better than they are. It is a model, never a time.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.arm import words
from bench.arm.emulator import Block
from bench.arm.tools import call, require

MODELS = {
    "a55": "cortex-a55",
    "a510": "cortex-a510",
    "n1": "neoverse-n1",  # Cortex-A76 and A77
    "n2": "neoverse-n2",  # Cortex-A78 and A710
    "x1": "cortex-x1",
}
"""Cores by short name. LLVM schedules cortex-a76 and a78 as an A57 and has no other model that may be quoted."""

TOOLS = ("llvm-mc-22", "llvm-mca-22")
ENOUGH = 0.999  # of the executed instructions are modelled; the rest costs what these do on average
_ITERATIONS = 100
_TARGET = "-triple=aarch64-linux-gnu"


@dataclass(frozen=True)
class Kernel:
    """The hottest loop of a program in one core's model: FMAs per cycle, which of them are by element, spills.

    fmas: vector FMAs in it; by_element: those that take one factor from a lane; spills: loads and stores in it whose
    base is the stack pointer.
    """

    fma_per_cycle: float
    fmas: int
    by_element: int
    spills: int
    words: int

    def misses(self, rate: float = 1.95) -> list[str]:
        """What keeps it from being a good GEMM micro-kernel; empty for one that is."""
        found = []
        if self.fma_per_cycle < rate:
            found.append(f"{self.fma_per_cycle:.2f} FMA/cycle, below {rate}")
        if self.spills:
            found.append(f"{self.spills} loads or stores on the stack")
        if self.by_element < self.fmas:
            found.append(f"{self.fmas - self.by_element} of {self.fmas} FMAs are not by element")
        return found


def total_cycles(blocks: Sequence[Block], model: str) -> float:
    """Modelled cycles of all executions of `blocks` on the core `model`, a key of MODELS.

    Raises RuntimeError where LLVM is missing or refuses the code, KeyError for another core.
    """
    hot, scale = _hottest(joined(blocks))
    return scale * sum(block.count * each for block, each in zip(hot, cycles(hot, model), strict=True))


def cycles(blocks: Sequence[Block], model: str) -> list[float]:
    """Modelled cycles of one execution of each block, at steady state. Errors as in `total_cycles`."""
    require(*TOOLS)
    if not blocks:
        return []
    regions = "".join(_region(number, lines) for number, lines in enumerate(_disassembled(blocks)))
    options = ["-mattr=+fullfp16,+dotprod", f"-iterations={_ITERATIONS}", "-skip-unsupported-instructions=any"]
    command = ["llvm-mca-22", f"-m{_TARGET[1:]}", f"-mcpu={MODELS[model]}", *options, "-json"]
    views = {region["Name"]: region["SummaryView"] for region in json.loads(call(command, text=regions))["CodeRegions"]}
    modelled = (views[f"b{number}"]["TotalCycles"] / _ITERATIONS for number in range(len(blocks)))
    return [max(each, _floor(block, model)) for each, block in zip(modelled, blocks, strict=True)]


def joined(blocks: Iterable[Block]) -> list[Block]:
    """Blocks that run as often as the one they run into become one: QEMU cuts code at the ends of its pages."""
    found: list[Block] = []
    for block in sorted(blocks, key=lambda b: b.address):
        last = found[-1] if found else None
        if last and (last.end, last.count) == (block.address, block.count) and not words.is_branch(last.words[-1]):
            found[-1] = Block(block.count, last.words + block.words, last.address)
        else:
            found.append(block)
    return found


def hottest(blocks: Sequence[Block], model: str = "n1") -> Kernel:
    """The block that executes most vector FMAs, as `model` sees it. Raises RuntimeError where there is none."""
    block = max(joined(blocks), key=lambda b: b.count * _fmas(b), default=None)
    if block is None or not _fmas(block):
        raise RuntimeError("no block holds a vector FMA")
    by_element, spills = (sum(map(of, block.words)) for of in (words.is_by_element, words.is_on_stack))
    return Kernel(_fmas(block) / cycles([block], model)[0], _fmas(block), by_element, spills, len(block.words))


def _hottest(blocks: Sequence[Block]) -> tuple[list[Block], float]:
    """The blocks that hold ENOUGH of the executed instructions, and all instructions over theirs."""
    order = sorted(blocks, key=lambda b: (-b.count * len(b.words), b.address))
    total, done, chosen = sum(b.count * len(b.words) for b in blocks), 0, []
    for block in order:
        if done >= ENOUGH * total:
            break
        chosen.append(block)
        done += block.count * len(block.words)
    return chosen, total / done if done else 1.0


def _disassembled(blocks: Sequence[Block]) -> list[list[str]]:
    data = (" ".join(f"{byte:#04x}" for byte in word.to_bytes(4, "little")) for b in blocks for word in b.words)
    text = call(["llvm-mc-22", "--disassemble", _TARGET, "-mattr=+all"], text="\n".join(data))
    lines = [line.strip() for line in text.splitlines() if line.startswith("\t") and not line.startswith("\t.")]
    if len(lines) != sum(len(block.words) for block in blocks):
        raise RuntimeError(f"llvm-mc-22 made {len(lines)} lines of {sum(len(b.words) for b in blocks)} instructions")
    rest = iter(lines)
    return [[next(rest) for _ in block.words] for block in blocks]


def _region(number: int, lines: Iterable[str]) -> str:
    body = "\n".join(map(_schedulable, lines))
    return f"// LLVM-MCA-BEGIN b{number}\n{body}\n// LLVM-MCA-END\n"


def _schedulable(line: str) -> str:
    """The line, or what stands for it: LLVM charges a call 100 cycles, and has no cost for what the system does."""
    name, _, rest = line.partition("\t")
    if name in ("bl", "blr"):
        return f"{name.replace('bl', 'b')}\t{rest}"
    return "nop" if re.fullmatch("svc|brk|mrs|msr|dc|hint|isb|dmb|dsb", name) else line


def _floor(block: Block, model: str) -> float:
    """LLVM lets a Cortex-A55 begin two 128-bit vector operations a cycle; the core has two units of 64 bits."""
    return float(sum(word & 0x4E000000 == 0x4E000000 for word in block.words)) if model == "a55" else 0.0


def _fmas(block: Block) -> int:
    return sum(map(words.is_fma, block.words))
