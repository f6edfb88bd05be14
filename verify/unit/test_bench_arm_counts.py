"""What reference layers cost on ARM: executed instructions against those written down, and the bars."""

import csv
from pathlib import Path

import pytest

from bench.arm import cycles, emulator, ours
from bench.arm.layers import LAYERS, Layer
from verify.unit.arm_programs import QEMU
from verify.unit.exported_networks import need

pytestmark = pytest.mark.usefixtures("bench_cache")
STORED = Path("bench/results/arm.csv")
BARS = {("ref-32", 1.0): 0.060, ("ref-32", 0.25): 0.025, ("ref-64", 1.0): 0.050, ("ref-64", 0.25): 0.016,
        ("ref-16", 1.0): 0.085, ("ref-128", 1.0): 0.058}  # fmt: skip


def stored(layer: Layer, share: float) -> int:
    with STORED.open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if (r["layer"], r["library"]) == (layer.name, "lrw")]
    return next(int(r["instructions"]) for r in rows if float(r["share"]) == share)


@pytest.mark.parametrize(("name", "share"), BARS)
def test_instructions_stay_where_they_are(name: str, share: float, tmp_path: Path) -> None:
    need(*QEMU)
    layer = next(layer for layer in LAYERS if layer.name == name)
    program = ours.build(layer, share, tmp_path)
    region = emulator.one_run(emulator.count(program, limit=300))
    assert region.counts.total <= 1.01 * stored(layer, share)
    assert region.counts.total <= BARS[name, share] * layer.macs
    if name == "ref-128":
        need(*cycles.TOOLS)
        assert cycles.hottest(region.blocks).misses() == []
