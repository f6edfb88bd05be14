"""What the ARM bench counts is exact, what it reads is checked."""

from functools import partial
from pathlib import Path

import pytest

from bench.arm import emulator, words
from bench.arm.emulator import Block, Misses, Region
from verify.unit.bench.arm_programs import EACH, LOOP, assembled

pytestmark = pytest.mark.usefixtures("bench_cache")


def accesses(region: Region) -> list[int]:
    return [region.count(partial(words.does, what)) for what in ("load", "store", "prefetch")]


def test_a_loop_is_counted_to_the_instruction(tmp_path: Path) -> None:
    regions = emulator.count(assembled(tmp_path, LOOP))
    region = emulator.one_run(regions)
    assert (region.total, region.count(words.is_fma), region.count(words.is_branch)) == (5003, 1000, 1002)
    assert accesses(region) == [1000, 1000, 0]
    assert sorted(regions) == [1, 2]
    assert regions[1].total == 5003 + 4  # and the mark
    assert [b.count for b in region.blocks if len(b.words) == 5] == [999]  # the first is part of the block before


def test_instructions_are_told_apart(tmp_path: Path) -> None:
    region = emulator.one_run(emulator.count(assembled(tmp_path, EACH)))
    assert (region.total, region.count(words.is_fma), region.count(words.is_by_element)) == (26, 2, 1)
    assert accesses(region) == [9, 4, 1]
    assert region.count(words.is_branch) == 3


def test_two_runs_count_the_same(tmp_path: Path) -> None:
    looped = assembled(tmp_path, LOOP)
    assert emulator.count(looped) == emulator.count(looped)


def test_a_sweep_over_128_kib_misses_every_line_of_level_1_and_none_of_level_2(tmp_path: Path) -> None:
    sweep = "mov x2, x1; mov x0, #2048; 1: ldr x3, [x2]; str x3, [x2, #8]; add x2, x2, #64; subs x0, x0, #1; b.ne 1b"
    regions = emulator.misses(assembled(tmp_path, sweep))
    assert regions[1] == Misses(accesses=4096, stores=2048, l1=2048, l2=2048, written_back=0)
    assert emulator.one_run(regions) == Misses(accesses=4096, stores=2048, l1=2048, l2=-2048, written_back=0)
    assert regions[2].l2 == 0


def test_a_program_that_fails_or_takes_too_long_says_so(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="qemu-aarch64 took more than 1 s"):
        emulator.count(assembled(tmp_path, "1: b 1b"), limit=1)
    with pytest.raises(RuntimeError, match="qemu-aarch64 gave exit status"):
        emulator.count(assembled(tmp_path, "udf #0"))


# Parsing


def test_blocks_that_were_translated_twice_are_one() -> None:
    lines = "region 1", "block 1 40 2 d503201f", "block 1 80 1 d503201f d503201f", "block 1 40 3 d503201f"
    nop = 0xD503201F
    assert emulator.parse_counts("\n".join(lines)) == {1: Region((Block(5, (nop,), 64), Block(1, (nop, nop), 128)))}


def test_the_difference_of_regions_holds_what_ran_more_often() -> None:
    first = Region((Block(2, (1,), 64), Block(4, (2,), 68)))
    second = Region((Block(5, (1,), 64), Block(4, (2,), 68), Block(4, (3,), 72)))
    assert second - first == Region((Block(3, (1,), 64), Block(4, (3,), 72)))


def test_what_a_plugin_should_not_have_written_is_refused() -> None:
    with pytest.raises(TypeError, match="unexpected"):
        emulator.parse_misses("region 1 accesses=1 stores=0 l1=0 l2=0 written_back=0 l3=0")
    with pytest.raises(RuntimeError, match=r"regions \[1\] were marked"):
        emulator.one_run(emulator.parse_counts("region 1"))
