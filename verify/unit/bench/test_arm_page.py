"""The table of ours and others' rows on ARM: joined by layer, summed over C3D, whatever is missing."""

from dataclasses import replace
from typing import Any

from bench.arm import page
from bench.arm.cycles import MODELS
from bench.arm.rows import Row, described, rates
from bench.layers import ARM, Layer


def row(layer: Layer, library: str, per_mac: float, **other: Any) -> Row:
    full = Row(**described(layer), library=library, version="1.0", share=1.0, l2=4_000, error=1e-6, per_mac=per_mac,
               instructions=round(per_mac * layer.macs), commit="abc", versions="qemu 1", date="2026-01-01",
               **rates(layer, dict.fromkeys(MODELS, per_mac * layer.macs)))  # fmt: skip
    return replace(full, **other)


def lines(ours: list[Row], peers: list[Row]) -> list[str]:
    return page.table(ours, peers)[2:]


def test_rows_of_one_layer_stand_together_ours_first() -> None:
    first, second = ARM[:2]
    ours = [row(first, "lrw", 0.1), row(first, "lrw", 0.05, share=0.25), row(second, "lrw", 0.2)]
    assert lines(ours, [row(second, "mnn", 0.4), row(first, "mnn", 0.2)]) == [
        "| ref-16 16->16 at 8x56x56 | lrw 1.0 | 100% | 0.100 | 50% | 10.00 | 10.00 | 10.00 | 4 k | 1.0e-06 |",
        "|  | lrw 1.0 | 25% | 0.050 | 25% | 20.00 | 20.00 | 20.00 | 4 k | 1.0e-06 |",
        "|  | mnn 1.0 | 100% | 0.200 | 100% | 5.00 | 5.00 | 5.00 | 4 k | 1.0e-06 |",
        "| ref-32 32->32 at 8x16x16 | lrw 1.0 | 100% | 0.200 | 50% | 5.00 | 5.00 | 5.00 | 4 k | 1.0e-06 |",
        "|  | mnn 1.0 | 100% | 0.400 | 100% | 2.50 | 2.50 | 2.50 | 4 k | 1.0e-06 |",
        "",
        "lrw: commit abc | qemu 1 | 2026-01-01.",
        "Others: commit abc | qemu 1 | 2026-01-01.",
    ]


def test_all_of_c3d_is_summed_for_those_who_have_all_of_it() -> None:
    layers = [layer for layer in ARM if layer.name.startswith("c3d")]
    ours = [row(layer, "lrw", 0.1 if i else 0.3, error=i * 1e-6) for i, layer in enumerate(layers)]
    peers = [row(layer, "mnn", 0.4, l2=None) for layer in layers] + [row(layers[0], "torch", 0.5)]
    whole = row(ARM[-1], "lrw", 0.2)
    made = lines([*ours, whole], peers)
    sums = [line for line in made if "c3d, its 8" in line or line.startswith("|  | mnn")][-2:]
    assert made[made.index(sums[0]) - 1].startswith("| whole-c3d 3->101 at 16x112x112 | lrw 1.0 | 100% | 0.200 | 50% |")
    macs = [layer.macs for layer in layers]
    mean = (0.2 * macs[0] + 0.1 * sum(macs)) / sum(macs)
    rate = 1 / mean
    expected = f"{mean:.3f} | {mean / 0.4:.0%} | {rate:.2f} | {rate:.2f} | {rate:.2f} | 32 k | 7.0e-06 |"
    assert sums[0] == f"| c3d, its 8 convolutions | lrw 1.0 | 100% | {expected}"
    assert sums[1].endswith("| 0.400 | 100% | 2.50 | 2.50 | 2.50 |  | 1.0e-06 |")


def test_without_our_rows_the_table_says_so() -> None:
    made = lines([], [row(ARM[0], "mnn", 0.2)])
    assert made[1:3] == ["", "This library's own rows are not measured yet."]
    assert len(made) == 4


def test_without_peers_nothing_is_compared() -> None:
    made = lines([row(ARM[0], "lrw", 0.2, l2=None)], [])
    assert made[0] == "| ref-16 16->16 at 8x56x56 | lrw 1.0 | 100% | 0.200 |  | 5.00 | 5.00 | 5.00 |  | 1.0e-06 |"
    assert made[1:] == ["", "lrw: commit abc | qemu 1 | 2026-01-01."]


def test_a_row_that_could_not_be_had_says_why_below() -> None:
    failed = Row(**described(ARM[0]), library="torch", version="1.0", share=1.0, note="too slow\nmuch")
    made = lines([row(ARM[0], "lrw", 0.2)], [failed])
    assert made[2] == "ref-16, torch 1.0: too slow."
    assert not any(line.startswith("|") and "torch" in line for line in made)
