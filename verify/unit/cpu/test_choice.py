"""Which way a convolution is computed: by formulas, or by timings that are kept."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import lrw
from lrw_kernels.choice import measured
from lrw_kernels.choice.convolution import Convolution, likely, prior
from lrw_kernels.choice.estimate import cheapest_tile
from lrw_kernels.choice.measured import CHOICES, DIRECT, Columns, Measured
from lrw_kernels.winograd import Tile, spatial_error

SMALL = Convolution((3, 3, 3), 16, 20, 1, (6, 7, 9), (1, 1, 1))
LARGE = Convolution((3, 3, 3), 64, 64, 1, (16, 56, 56), (1, 1, 1))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Nothing was timed before, and everything is worth it."""
    monkeypatch.setenv("LRW_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(measured, "WORTH", 0.0)
    measured._rows.cache_clear()
    yield tmp_path
    measured._rows.cache_clear()


def test_sizes_of_a_convolution() -> None:
    of = Convolution((1, 3, 5), 2, 3, 4, (6, 7, 9), (0, 1, 0))
    assert of.output == (6, 7, 5)
    assert of.winograd
    assert not Convolution((1, 1, 1), 2, 3, 4, (6, 7, 9), (0, 0, 0)).winograd
    assert not Convolution((9, 1, 1), 2, 3, 4, (16, 7, 9), (0, 0, 0)).winograd
    assert of.text == "1x3x5 2->3 on 4x6x7x9 padding 0x1x0"


def test_auto_tile_is_the_cheapest_within_the_error_asked_for() -> None:
    assert cheapest_tile((3, 3, 3), 64, 64, (16, 56, 56)).outputs == (4, 4, 4)
    assert cheapest_tile((1, 3, 3), 64, 64, (16, 56, 56)).outputs == (1, 4, 4)
    tight = cheapest_tile((3, 3, 3), 64, 64, (16, 56, 56), rtol=5e-6)
    assert spatial_error(tight, 64, 2**-23) <= 5e-6
    assert max(tight.outputs) < 4


def test_auto_tile_has_no_more_outputs_than_it_may() -> None:
    assert cheapest_tile((3, 3, 3), 64, 64, (16, 56, 56), most_outputs=2).outputs == (2, 2, 2)


def test_auto_tile_refuses_what_no_tile_reaches() -> None:
    with pytest.raises(ValueError, match="rtol: 1e-08 is below"):
        cheapest_tile((3, 3, 3), 64, 64, (16, 56, 56), rtol=1e-8)


def test_formulas_choose_within_the_bound_and_directly_where_there_is_none() -> None:
    assert prior()(LARGE) == Tile.of(4)
    assert prior(most_outputs=2)(LARGE) == Tile.of(2)
    tile = prior(rtol=3e-6)(LARGE)
    assert tile is not None
    assert spatial_error(tile, 64, 2.0**-23) <= 3e-6
    assert prior(rtol=1e-9)(LARGE) is None
    assert likely(LARGE, 1e-9, 3) == []
    assert prior()(Convolution((1, 1, 1), 64, 64, 1, (8, 8, 8), (0, 0, 0))) is None


def test_what_was_timed_is_kept_for_the_next_process(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = Measured(2)(SMALL)
    (row,) = measured._rows(CHOICES).values()
    assert DIRECT in row
    assert 3 <= len(row) <= 5
    assert min(row.values()) > 0
    assert [path.suffix for path in cache.iterdir() if path.suffix == ".json"] == [".json"]
    measured._rows.cache_clear()
    monkeypatch.setattr("lrw_kernels.choice.measured._race", lambda *_: pytest.fail("timed again"))
    assert Measured(2)(SMALL) == chosen
    with pytest.raises(pytest.fail.Exception, match="timed again"):
        Measured(1)(SMALL)


def test_a_damaged_file_is_as_none(cache: Path) -> None:
    Measured(1)(SMALL)
    (path,) = (path for path in cache.iterdir() if path.suffix == ".json")
    path.write_bytes(path.read_bytes()[:-2] + b"??")
    measured._rows.cache_clear()
    assert measured._rows(CHOICES) == {}


def test_of_equally_fast_ways_the_most_exact_is_taken() -> None:
    assert measured._taken({"4x4x4": 1.0, "2x4x4": 1.03, "2x2x2": 1.2, DIRECT: 2.0}, LARGE) == Tile.of((2, 4, 4))
    assert measured._taken({"4x4x4": 1.0, "2x4x4": 1.1, DIRECT: 1.02}, LARGE) is None
    assert measured._taken({"4x4x4": 1.0, "2x4x4": 1.1, DIRECT: 1.5}, LARGE) == Tile.of(4)


def test_small_layers_are_held_against_direct_convolution_alone(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured, "WORTH", 1.0)
    Measured(2)(SMALL)
    (row,) = measured._rows(CHOICES).values()
    (likeliest,) = likely(SMALL, 1e-4, 1)
    tiles = dict.fromkeys("x".join(map(str, tile.outputs)) for tile in (prior()(SMALL), likeliest) if tile)
    assert list(row) == [*tiles, DIRECT]


def test_what_has_one_way_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lrw_kernels.choice.measured._race", lambda *_: pytest.fail("timed"))
    assert Measured(2)(Convolution((1, 1, 1), 512, 512, 8, (64, 64, 64), (0, 0, 0))) is None
    assert Measured(2, rtol=1e-9)(LARGE) is None


def test_accelerate_measures_where_it_may_and_keeps_within_rtol(cache: Path) -> None:
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Conv3d(3, 16, 3, padding=1), nn.ReLU()).eval(), torch.randn(1, 3, 6, 8, 8)
    with torch.no_grad():
        expected = net(x)
        for measure in (False, True):
            fast = lrw.accelerate(net, x, measure=measure)
            assert bool(measured._rows(CHOICES)) == measure
            torch.testing.assert_close(fast(x), expected, rtol=0, atol=1e-5)
        exact = lrw.accelerate(net, x, rtol=1e-7)
    assert exact.report.parts[0].operator == "Direct"


@pytest.mark.parametrize("rtol", [0, -1e-4, float("nan"), True, "1e-4", None])
def test_other_bounds_are_refused(rtol: object) -> None:
    with pytest.raises(ValueError, match=r"^rtol: .*; accepted (are positive numbers|is a number)"):
        lrw.accelerate(nn.Conv3d(1, 1, 3), torch.zeros(1, 1, 4, 4, 4), rtol=rtol)


def test_a_plan_carries_what_was_timed(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen, file = Measured(2)(SMALL), tmp_path / "plan.json"
    assert lrw.save_plan(file) == file
    assert lrw.load_plan(file) == 0  # all of it is known here
    monkeypatch.setenv("LRW_CACHE_DIR", str(tmp_path / "elsewhere"))
    measured._rows.cache_clear()
    monkeypatch.setattr("lrw_kernels.choice.measured._race", lambda *_: pytest.fail("timed again"))
    assert lrw.load_plan(file) == 1
    assert Measured(2)(SMALL) == chosen
    measured._rows.cache_clear()  # the next process
    assert Measured(2)(SMALL) == chosen


_KEY = "3x3x3 16->20 on 1x6x7x9 padding 1x1x1 rtol 0.0001 threads 2"
PLAN = {"format": 1, "version": lrw.__version__, "processor": "", "problems": {_KEY: {}}}
ROWS: dict[str, tuple[object, str]] = {
    "no times": ({}, "no problem with its times"),
    "another tile": ({"9x9x9": 1.0}, "'9x9x9'; accepted are 'direct' and tiles within 0.0001"),
    "no tile": ({"fast": 1.0}, "'fast'; accepted"),
    "no number": ({"direct": "1"}, "direct: '1'; accepted are milliseconds"),
    "no time": ({"2x2x2": 0.0}, "2x2x2: 0.0; accepted"),
    "a list": ([], "a JSON list; accepted is an object"),
}


@pytest.mark.parametrize("what", ROWS)
def test_rows_of_a_plan_are_checked(what: str, cache: Path) -> None:
    row, message = ROWS[what]
    file = cache / "plan.json"
    file.write_text(json.dumps(PLAN | {"processor": measured.processor(), "problems": {_KEY: row}}))
    with pytest.raises(ValueError, match=re.escape(message)):
        lrw.load_plan(file)
    assert measured.known() == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"processor": "another"}, "processor: 'another'; accepted is "),
        ({"version": "0"}, "version: '0'; accepted is "),
        ({"problems": {_KEY.replace("16->", "9" * 400 + "->"): {"direct": 1.0}}}, "is no problem with its times"),
        ({"problems": {_KEY.replace("16->", "0->"): {"direct": 1.0}}}, "is no problem with its times"),
        ({"problems": {_KEY.replace("0.0001", "."): {"direct": 1.0}}}, "is no problem with its times"),
        ({"problems": {_KEY.replace("0.0001", "1e999"): {"direct": 1.0}}}, "is no problem with its times"),
        ({"format": 2}, "format: 2; accepted is a whole number from 1 to 1"),
        ({"more": 1}, "'more'; accepted are format, version, processor, problems"),
        ({"problems": {"a problem": {"direct": 1.0}}}, "is no problem with its times"),
    ],
)
def test_other_files_are_no_plans(change: dict[str, object], message: str, cache: Path) -> None:
    file = cache / "plan.json"
    file.write_text(json.dumps(PLAN | {"processor": measured.processor()} | change))
    with pytest.raises(ValueError, match=re.escape(message)):
        lrw.load_plan(file)
    file.write_text("{")
    with pytest.raises(ValueError, match=r"plan\.json"):
        lrw.load_plan(file)
    with pytest.raises(FileNotFoundError):
        lrw.load_plan(cache / "none.json")


def test_columns_are_timed_once_and_lie_on_a_line(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tile = Tile.of(2)
    monkeypatch.setattr(
        "lrw_kernels.choice.measured._race", lambda runs, _: {name: 1 + int(name) / 10 for name in runs}
    )
    columns = Columns(2)
    assert [columns(SMALL, tile, kept) for kept in (64, 16, 40, 1)] == pytest.approx([7.4, 2.6, 5.0, 1.1])
    assert measured._rows(CHOICES) == {}  # plans that are carried hold none of it
    measured._rows.cache_clear()
    monkeypatch.setattr("lrw_kernels.choice.measured._race", lambda *_: pytest.fail("timed again"))
    assert Columns(2)(SMALL, tile, 40) == pytest.approx(5.0)


def test_noise_does_not_make_fewer_columns_slower(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lrw_kernels.choice.measured._race", lambda runs, _: {"16": 2.0, "64": 1.0})
    assert [Columns(1)(SMALL, Tile.of(2), kept) for kept in (64, 16, 1)] == [1.0, 1.0, 1.0]


def test_columns_of_a_layer_are_timed_here(cache: Path) -> None:
    columns = Columns(1)
    few, all_of_them = (columns(LARGE, Tile.of(2), kept) for kept in (16, 64))
    assert 0 < few < all_of_them
    assert Measured(1).milliseconds(SMALL) > 0
