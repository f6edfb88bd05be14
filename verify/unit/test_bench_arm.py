"""The ARM bench: what it counts is exact, what it models is what the model says, what is missing it names."""

import csv
import hashlib
import re
import zipfile
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from bench.arm import __main__ as program
from bench.arm import emulator, measure, ours, rows
from bench.arm.data import values
from bench.arm.emulator import Block, Counts, Misses, Region
from bench.arm.layers import LAYERS, Layer, select
from bench.arm.peers import install, onnx_model
from bench.arm.program import Program
from bench.arm.table import of
from verify.unit.exported_layers import call, need

SMALL = Layer("small", 4, 8, (4, 6, 6))
QEMU = ("gcc", "qemu-aarch64", "aarch64-linux-gnu-gcc")
START = """
.macro mark tag
  movz x8, #0xA120
  movk x8, #7, lsl #16
  add x8, x8, #\\tag
  svc #0
.endm
.bss
.balign 4096
data: .zero 131072
.text
.global _start
_start:
  ldr x1, =data
  bl run
  mark 0
  bl run
  mark 1
  bl run
  bl run
  mark 2
  mov x8, #93
  mov x0, #0
  svc #0
run:
  {run}
  ret
"""
LOOP = """
  mov x0, #1000
1: ldr q0, [x1]
  fmla v1.4s, v2.4s, v0.s[0]
  str q0, [x1, #16]
  subs x0, x0, #1
  b.ne 1b
"""
EACH = """
  ldp q0, q1, [x1]
  ld1 {v0.4s, v1.4s, v2.4s}, [x1]
  ld1r {v3.4s}, [x1]
  ld1 {v3.s}[1], [x1]
  ld2 {v4.2s, v5.2s}, [x1]
  ldr x3, [x1, #8]
  ldrb w3, [x1]
  ldpsw x3, x4, [x1]
  ldar w3, [x1]
  stp x3, x4, [x1]
  st1 {v0.d}[1], [x1]
  str s0, [x1]
  stur q0, [x1, #16]
  prfm pldl1keep, [x1]
  fmla v6.4s, v7.4s, v8.4s
  fmls v6.4s, v7.4s, v8.s[3]
  fmla v6.8h, v7.8h, v8.h[1]
  fmul v6.4s, v7.4s, v8.s[1]
  fadd v6.4s, v7.4s, v8.4s
  fmadd s6, s7, s8, s9
  sdot v6.4s, v7.16b, v8.16b
  zip1 v6.4s, v7.4s, v8.4s
  nop
  b 1f
1:
"""


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Plugins and peers go to a folder of the tests' own."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LRW_BENCH_CACHE", str(folder))
        yield folder


def assembled(folder: Path, run: str) -> Program:
    """A program without a library whose runs are the instructions `run`."""
    need(*QEMU)
    (folder / "main.S").write_text(START.replace("{run}", run))
    call(
        "aarch64-linux-gnu-gcc",
        "-nostdlib",
        "-static",
        "-march=armv8.2-a+fp16+dotprod",
        "main.S",
        "-o",
        "main",
        cwd=folder,
    )
    nothing = np.zeros(1)
    return Program(("./main",), folder, lambda: nothing.astype(np.float32), lambda: nothing)


def counts(**known: int) -> Counts:
    return Counts(**{**dict.fromkeys(Counts.__dataclass_fields__, 0), **known})


# Counting


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
    assert [layer.name for layer in select("c3d-3, ref-16")] == ["ref-16", "c3d-3a", "c3d-3b"]
    with pytest.raises(ValueError, match="'c4d' begins no layer's name; there are ref-16"):
        select("ref,c4d")


# From a layer to a row


def test_our_layer_is_measured_behind_its_gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need(*QEMU)
    monkeypatch.setattr(measure.cycles, "total_cycles", lambda *_: 1e6)
    monkeypatch.setattr(rows, "versions", lambda: "some")
    row = measure.measure(measure.our_contenders()[1], SMALL, 60)
    assert row.note == ""
    assert row.error is not None
    assert row.error < 1e-5
    assert 0 < (row.per_mac or 0) < 10
    rows.write(tmp_path / "rows.csv", [row, row])
    with (tmp_path / "rows.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert first == second
    assert (first["layer"], first["share"], first["macs"]) == ("small", "0.25", str(SMALL.macs))
    assert all(first[name] for name in (*rows.CERTIFICATE, "mac_per_cycle_n1", "l1", "l2"))


def test_a_wrong_result_gives_no_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Program(("main",), tmp_path, lambda: np.full((1, 2), np.nan, np.float32), lambda: np.ones((1, 2)))
    monkeypatch.setattr(measure.emulator, "count", lambda *_, **__: {1: text_region(), 2: text_region()})
    monkeypatch.setattr(measure.emulator, "misses", lambda *_, **__: pytest.fail("measured behind a red gate"))
    row = measure.measure(measure.Contender("odd", "1", 1.0, lambda *_: wrong), SMALL, 60)
    assert row.note == "wrong: error nan of the largest output"
    assert row.instructions is None


def text_region() -> Region:
    return Region(counts(total=1), ())


def test_a_peer_that_cannot_be_installed_says_why_and_the_rest_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    contenders = [measure.peer_contender("mnn"), measure.peer_contender("torch")]
    done = program.run([SMALL], contenders, 60, None)
    reason = "missing: apt-get, dpkg-deb (Debian: apt-get install apt dpkg)"
    assert [(row.library, row.note) for row in done] == [("mnn", reason), ("torch", reason)]
    assert f"torch 2.10.0: {reason}" in capsys.readouterr().out
    assert of(done).row_count == 2


def test_wheels_are_installed_by_their_digest_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_INDEX", "DISABLE_PIP_VERSION_CHECK"):
        monkeypatch.setenv(f"PIP_{name}", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    digest = wheel(tmp_path)
    monkeypatch.setattr(install, "LISTS", tmp_path)
    (tmp_path / "good.txt").write_text(f"thing==1.0 --hash=sha256:{digest}\n")
    (tmp_path / "bad.txt").write_text(f"thing==1.0 --hash=sha256:{digest[::-1]}\n")
    site = install.installed_wheels("good")
    assert (site / "thing.py").read_text() == "ANSWER = 42\n"
    with pytest.raises(RuntimeError, match=digest):
        install.installed_wheels("bad")
    assert install.installed_wheels("good") == site
    assert not [path for path in site.parent.iterdir() if path.name.startswith(("bad", "tmp"))]


def wheel(folder: Path) -> str:
    """Write the wheel of a package `thing` for aarch64; its sha256."""
    path = folder / "thing-1.0-cp311-cp311-manylinux_2_28_aarch64.whl"
    tag = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: false\nTag: cp311-cp311-manylinux_2_28_aarch64\n"
    members = {
        "thing.py": "ANSWER = 42\n",
        "thing-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n",
        "thing-1.0.dist-info/WHEEL": tag,
        "thing-1.0.dist-info/RECORD": "thing.py,,\n",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_onnx_model_holds_the_layer() -> None:
    _, weight = values(SMALL)
    model = fields_of(onnx_model.conv3d_model(SMALL, weight))
    graph = fields_of(model[7][0])
    node, tensor = fields_of(graph[1][0]), fields_of(graph[5][0])
    assert node[4] == [b"Conv"]
    assert [fields_of(attribute)[8] for attribute in node[5]] == [[3] * 3, [1] * 6, [1] * 3]
    assert tensor[1] == [8, 4, 3, 3, 3]
    assert tensor[9] == [weight.tobytes()]
    shapes = [
        fields_of(fields_of(fields_of(fields_of(value)[2][0])[1][0])[2][0])[1] for value in (graph[11][0], graph[12][0])
    ]
    assert [[fields_of(size)[1][0] for size in shape] for shape in shapes] == [[1, 4, 4, 6, 6], [1, 8, 4, 6, 6]]


def fields_of(message: bytes) -> dict[int, list[int | bytes]]:
    """The fields of a protocol buffer of numbers and things with a length."""
    found: dict[int, list[int | bytes]] = {}
    rest = iter(message)

    def number() -> int:
        value = shift = 0
        for byte in rest:
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        return value

    while rest.__length_hint__():
        key = number()
        value = number()
        found.setdefault(key >> 3, []).append(bytes(islice(rest, value)) if key & 7 == 2 else value)
    return found


# The command


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layers", "c4d"], "argument --layers: 'c4d' begins no layer's name; there are ref-16, .*"),
        (["--peers", "mnn,ncnn"], "argument --peers: 'mnn,ncnn'; accepted are mnn, onnxruntime, torch"),
        (["--only", "both"], "argument --only: invalid choice: 'both' .*"),
        (["--limit", "-3"], "argument --limit: '-3'; accepted are positive numbers"),
        (["--csv", "no/such/folder.csv"], "argument --csv: .*; accepted is a file in a folder that exists"),
        (["--speed"], "unrecognized arguments: --speed"),
    ],
)
def test_wrong_arguments_give_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        program.main(arguments)
    assert stopped.value.code == 2
    assert re.fullmatch(f"bench_arm: {message}\n", capsys.readouterr().err)


def test_missing_tools_are_named_with_their_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert program.main([]) == 2
    packages = "gcc gcc-aarch64-linux-gnu llvm-22 qemu-user"
    missing = "gcc, qemu-aarch64, llvm-mc-22, llvm-mca-22, aarch64-linux-gnu-gcc"
    assert capsys.readouterr().err == f"bench_arm: missing: {missing} (Debian: apt-get install {packages})\n"


def test_control_c_ends_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(program.tools, "require", lambda *_: None)
    monkeypatch.setattr(program, "run", stopped)
    assert program.main([]) == 130
    assert capsys.readouterr().err == "\nbench_arm: stopped\n"


@pytest.mark.parametrize("failing", ["lrw", "mnn"])
def test_only_a_row_of_ours_that_fails_is_a_failure(failing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = [rows.Row(SMALL, name, "1", 1.0, note="no" if name == failing else "") for name in ("lrw", "mnn")]
    monkeypatch.setattr(program.tools, "require", lambda *_: None)
    monkeypatch.setattr(program, "run", lambda *_: failed)
    assert program.main([]) == (1 if failing == "lrw" else 0)


def test_a_share_of_the_columns_is_drawn_the_same_every_time() -> None:
    tile = ours.Tile.of(4)
    assert len(ours._kept(tile, 0.25)) == 54
    assert ours._kept(tile, 0.25) == ours._kept(tile, 0.25)
