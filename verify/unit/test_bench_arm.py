"""What the ARM bench counts is exact, what it reads is checked, layers are those of the networks."""

from pathlib import Path

import pytest

from bench.arm import emulator
from bench.arm.emulator import Block, Counts, Misses, Region
from bench.arm.layers import LAYERS
from bench.layers import select
from verify.unit.arm_programs import EACH, LOOP, assembled, counts

pytestmark = pytest.mark.usefixtures("bench_cache")


def test_a_loop_is_counted_to_the_instruction(tmp_path: Path) -> None:
    regions = emulator.count(assembled(tmp_path, LOOP))
    bytes_of = {"load_bytes": 16000, "store_bytes": 16000}
    vector = {"vector_loads": 1000, "vector_stores": 1000}
    once = counts(total=5003, fma=1000, loads=1000, stores=1000, branches=1002, **vector, **bytes_of)
    region = emulator.one_run(regions)
    assert region.counts == once
    assert sorted(regions) == [1, 2]
    assert regions[1].counts.total == 5003 + 4  # and the mark
    assert [b.count for b in region.blocks if len(b.words) == 5] == [999]  # the first is part of the block before
    for whole in regions.values():
        assert sum(block.count * len(block.words) for block in whole.blocks) == whole.counts.total


def test_every_class_of_instructions_is_told_apart(tmp_path: Path) -> None:
    found = emulator.one_run(emulator.count(assembled(tmp_path, EACH))).counts
    loads = {"loads": 9, "vector_loads": 5, "load_bytes": 32 + 48 + 4 + 4 + 16 + 8 + 1 + 8 + 4}
    stores = {"stores": 4, "vector_stores": 3, "store_bytes": 16 + 8 + 4 + 16}
    vector = {"fma": 2, "fma16": 1, "multiply": 1, "add": 1, "scalar_fma": 1, "dot": 1, "other_vector": 1}
    assert found == counts(total=26, prefetches=1, branches=3, **loads, **stores, **vector)


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


def text_of(total: int, *blocks: str) -> str:
    return "\n".join([f"region 1 {numbers(total)}", *blocks])


def numbers(total: int) -> str:
    return " ".join(f"{name}={total if name == 'total' else 0}" for name in Counts.__dataclass_fields__)


def test_blocks_that_were_translated_twice_are_one() -> None:
    text = text_of(7, "block 1 40 2 d503201f", "block 1 80 1 d503201f d503201f", "block 1 40 3 d503201f")
    nop = 0xD503201F
    assert emulator.parse_counts(text) == {
        1: Region(counts(total=7), (Block(5, (nop,), 64), Block(1, (nop, nop), 128)))
    }


def test_the_difference_of_regions_holds_what_ran_more_often() -> None:
    first = Region(counts(total=6), (Block(2, (1,), 64), Block(4, (2,), 68)))
    second = Region(counts(total=13), (Block(5, (1,), 64), Block(4, (2,), 68), Block(4, (3,), 72)))
    assert second - first == Region(counts(total=7), (Block(3, (1,), 64), Block(4, (3,), 72)))


def test_what_a_plugin_should_not_have_written_is_refused() -> None:
    with pytest.raises(TypeError, match="unexpected"):
        emulator.parse_misses("region 1 accesses=1 stores=0 l1=0 l2=0 written_back=0 l3=0")
    with pytest.raises(RuntimeError, match=r"regions \[1\] were marked"):
        emulator.one_run(emulator.parse_counts(text_of(1)))


# Layers


def test_direct_multiply_adds_are_those_of_the_networks() -> None:
    by_name = {layer.name: layer.macs for layer in LAYERS}
    assert by_name["ref-32"] == 56_623_104
    assert by_name["ref-64"] == 693_633_024
    c3d = sum(macs for name, macs in by_name.items() if name.startswith("c3d"))
    assert c3d == 27 * 12544 * (
        16 * 3 * 64 + 4 * 64 * 128 + (128 + 256) * 256 // 2 + 512 * (256 + 512) // 16 + 512 * 512 // 64
    )


def test_layers_are_selected_by_the_beginnings_of_their_names() -> None:
    assert [layer.name for layer in select("c3d-3, ref-16", LAYERS)] == ["ref-16", "c3d-3a", "c3d-3b"]
    with pytest.raises(ValueError, match="'c4d' begins no layer's name; there are ref-16"):
        select("ref,c4d", LAYERS)
