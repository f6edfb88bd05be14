"""Numbers of a layer, as texts and as arguments: what is out of range is named at once, and nothing is computed."""

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from itertools import count
from time import process_time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import lrw
from lrw import ops
from lrw_kernels.winograd import Tile, kept_positions
from verify.damage import FUZZED, refusal
from verify.strategies import any_tile

HUGE = 10**5000  # Python writes no number of that many digits

TEXTS: dict[str, tuple[object, str]] = {
    "an exponent": ("F(2x2x2,3x3x3)@0,0,0[0 1 1e9999999;0 1 -1;0 1 -1]", "tile: .* is not of the form"),
    "a decimal": ("F(2x2x2,3x3x3)@0,0,0[0 1 0.5;0 1 -1;0 1 -1]", "tile: .* is not of the form"),
    "a long numerator": ("F(2x2x2,3x3x3)@0,0,0[0 1 1000;0 1 -1;0 1 -1]", "points: '0 1 1000'; accepted are"),
    "a long denominator": ("F(2x2x2,3x3x3)@0,0,0[0 1 1/1000;0 1 -1;0 1 -1]", "points: '0 1 1/1000'; accepted are"),
    "a denominator of 0": ("F(2x2x2,3x3x3)@0,0,0[0 1 1/0;0 1 -1;0 1 -1]", "points: '0 1 1/0'; accepted are"),
    "no points": ("F(2x2x2,3x3x3)@0,0,0[;;]", r"points: F\(2,3\) interpolates at 3 finite points .* got 0"),
    "many points": (f"F(2x2x2,3x3x3)@0,0,0[{'0 ' * 100};0 1 -1;0 1 -1]", "points: .* at most 13 rationals"),
    "points of two axes": ("F(2x2x2,3x3x3)@0,0,0[0 1 -1;0 1 -1]", "points for 2 axes"),
    "other digits": ("F(\N{ARABIC-INDIC DIGIT TWO}x2x2,3x3x3)", "is not of the form"),
    "many outputs": ("F(9x2x2,3x3x3)", "tile: 9 outputs per axis; accepted are 1 to 8"),
    "no outputs": ("F(0x2x2,3x3x3)", "tile: 0 outputs per axis; accepted are 1 to 8"),
    "many taps": ("F(2x2x2,3x3x8)", "kernel_size: 8 taps per axis; accepted are 1 to 7"),
    "outputs of many digits": (f"F({'9' * 300}x2x2,3x3x3)", "is not of the form"),
    "an origin out of the tile": ("F(2x2x2,3x3x3)@0,2,0", "origin: 2 on axis h; accepted are 0 to 1"),
    "a long text": ("F(2x2x2,3x3x3)" * 10**6, "is not of the form"),
    "nothing": (None, "tile: None is not of the form"),
    "a list": (["F(2x2x2,3x3x3)"], "is not of the form"),
    "a number": (1e9, "is not of the form"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts_that_no_tile_has_are_named_at_once(name: str) -> None:
    text, message = TEXTS[name]
    start = process_time()
    with pytest.raises(ValueError, match=message) as caught:
        Tile.parse(text)  # type: ignore[arg-type]
    assert process_time() - start < 1
    assert len(str(caught.value)) < 500


def test_the_largest_tile_has_a_text() -> None:
    points = [Fraction(999 - n, 998 - n) * (-1) ** n for n in range(13)]
    tile = Tile.of(8, 7, origin=(7, 7, 7), points=[points] * 3)
    assert Tile.parse(str(tile)) == tile


@given(any_tile(), st.data())
@FUZZED
def test_damaged_texts_are_refused_or_say_another_tile(tile: Tile, data: st.DataObject) -> None:
    text, found = str(tile), list[Tile]()
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        new = data.draw(st.text("0123456789/-;,x[]()@ eE.", max_size=6) | st.sampled_from(["9" * 400, text, "\0"]))
        text = text[:at] + new + text[at + data.draw(st.integers(0, 3)) :]
    said = refusal(lambda: found.append(Tile.parse(text)))
    assert said is None or said.startswith(("tile: ", "points: ", "kernel_size: ", "origin: "))
    assert all(Tile.parse(str(other)) == other for other in found)


X, W, U = torch.ones(1, 1, 4, 4, 4), torch.ones(1, 1, 3, 3, 3), torch.ones(64, 1, 1)
ARGUMENTS: dict[str, tuple[Callable[[], object], str]] = {
    "outputs": (lambda: Tile.of(HUGE), "tile: a whole number of more than 40 digits outputs"),
    "taps": (lambda: Tile.of(2, 10**9), "kernel_size: 1000000000 taps"),
    "origin": (lambda: Tile.of(2, origin=(HUGE, 0, 0)), "origin: a whole number of more than 40 digits on axis d"),
    "a float origin": (lambda: Tile(Tile.of(2).axes, (0.5, 0, 0)), "origin: .*neither an int"),  # type: ignore[arg-type]
    "points of two axes": (lambda: Tile.of(2, points=["0 1 -1"] * 2), "points: .* three lists"),
    "points in one text": (lambda: Tile.of(2, points="0 1 -1"), "points: .* three lists"),
    "points without end": (lambda: Tile.of(2, points=[count(), None, None]), "points: .* at most 13"),  # type: ignore[list-item]
    "an infinite point": (lambda: Tile.of(2, points=[[0, 1, float("inf")], None, None]), "points: .*inf.*"),  # type: ignore[list-item]
    "a huge point": (lambda: Tile.of(2, points=[[0, 1, HUGE], None, None]), "points: .* numbers up to 999"),
    "a decimal": (lambda: Tile.of(2, points=[[0, 1, Decimal("1e9999999")], None, None]), "points: "),  # type: ignore[list-item]
    "an exponent": (lambda: Tile.of(2, points=["0 1 1e9999999", None, None]), "points: '0 1 1e9999999'"),
    "kept without end": (lambda: kept_positions(count(), Tile.of(2)), r"kept: position 64 outside 0\.\.63"),
    "a huge kept": (lambda: kept_positions([HUGE], Tile.of(2)), "kept: position a whole number of more"),
    "padding 1e9": (lambda: ops.winograd_conv3d(X, W, padding=10**9), "padding: .* 0 to 64 on each axis"),
    "a float": (lambda: ops.winograd_conv3d(X, W, padding=1e9), "padding: 1000000000.0 is neither"),  # type: ignore[arg-type]
    "domain": (lambda: ops.winograd_domain_conv3d(X, U, tile=2, padding=(65, 0, 0)), r"padding: \(65, 0, 0\); acc"),
    "layer": (lambda: lrw.WinogradConv3d(1, 1, padding=10**9), "padding: .* 0 to 64 on each axis"),
    "network": (lambda: lrw.to_winograd(nn.Conv3d(1, 1, 3, padding=65)), r"padding \(65, 65, 65\); accepted are 0"),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_out_of_range_are_named_at_once(name: str) -> None:
    call, message = ARGUMENTS[name]
    start = process_time()
    with pytest.raises(ValueError, match=message):
        call()
    assert process_time() - start < 1


def test_the_most_padding_that_is_accepted_is_right() -> None:
    x, w = torch.randn(1, 1, 2, 3, 2), torch.randn(1, 1, 3, 3, 3)
    expected = nn.functional.conv3d(x, w, padding=(64, 1, 2))
    torch.testing.assert_close(ops.winograd_conv3d(x, w, padding=(64, 1, 2)), expected, rtol=1e-4, atol=1e-5)


def test_a_layer_with_more_padding_stays_as_it_is() -> None:
    net = nn.Sequential(nn.Conv3d(1, 2, 3, padding=65), nn.Conv3d(2, 2, 3))
    assert lrw.to_winograd(net).report.skipped == {"0": "padding (65, 65, 65); accepted are 0 to 64 on each axis"}
