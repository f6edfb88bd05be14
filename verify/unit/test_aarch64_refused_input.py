"""What export refuses: wrong specs, JSON, arrays and targets are named, and nothing is written."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lrw_kernels.aarch64.build import build_layer, pack_weights
from lrw_kernels.aarch64.emulate import missing_tools
from lrw_kernels.aarch64.lower import lower_layer
from lrw_kernels.aarch64.spec import LayerSpec
from lrw_kernels.aarch64.targets import TARGETS
from verify.unit.exported_layers import BASE, SPECS


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_spec_survives_json(spec: LayerSpec) -> None:
    assert LayerSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "2d"}, "name: '2d'; accepted are C identifiers"),
        ({"name": "größe"}, "name: "),
        ({"name": "a\n"}, "name: "),
        ({"tile": "F(2x2x2,3x3x3)"}, r"tile: .* is not a Tile"),
        ({"padding": (0, -1, 0)}, "padding: -1; accepted are integers from 0"),
        ({"padding": 1}, "padding: 1; accepted are three"),
        ({"input_size": (4, 4, 0)}, "input_size: 0; accepted are integers from 1"),
        ({"input_size": (1, 4, 4), "padding": (0, 0, 0)}, r"input_size: .* smaller than the filter"),
        ({"cin": 2.5}, "cin: 2.5"),
        ({"cout": True}, "cout: True"),
        ({"batch": 0}, "batch: 0"),
        ({"batch": 2**45}, "spec: a buffer of"),
        ({"kept": (3, 1)}, "kept: positions must rise"),
        ({"kept": (64,)}, "kept: position 64 outside"),
        ({"bias": 1}, "bias: 1; accepted are True and False"),
    ],
)
def test_spec_refuses(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        replace(BASE, **change)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "spec: not JSON"),
        ("[]", "spec: a JSON list"),
        (json.dumps({**BASE.to_dict(), "stride": 2}), "spec: unknown field 'stride'"),
        (json.dumps({k: v for k, v in BASE.to_dict().items() if k != "cin"}), "spec: missing field 'cin'"),
        (json.dumps({**BASE.to_dict(), "tile": 2}), "tile: 2"),
    ],
)
def test_json_refuses(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        LayerSpec.from_json(text)


U, BIAS = np.zeros(BASE.weight_shape, np.float32), np.zeros(3, np.float32)


@pytest.mark.parametrize(
    ("u", "bias", "message"),
    [
        (U[1:], BIAS, r"u: shape \[63, 2, 3\]; accepted is \[64, 2, 3\]"),
        (U.astype(np.float64), BIAS, "u: float64; accepted is a float32 array"),
        (U.tolist(), BIAS, "u: list"),
        (U + np.float32(np.inf), BIAS, "u: has values that are not finite"),
        (U, None, "bias: missing"),
        (U, BIAS[:2], r"bias: shape \[2\]"),
        (U, BIAS * np.float32(np.nan), "bias: has values that are not finite"),
    ],
)
def test_build_refuses_arrays_and_writes_nothing(tmp_path: Path, u: Any, bias: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        build_layer(BASE, u, bias, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_bias_that_the_layer_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^bias: given; the layer says bias=False"):
        pack_weights(replace(BASE, bias=False), U, BIAS)


@pytest.mark.parametrize("function", [lower_layer, lambda spec, target: missing_tools(target)])
def test_unknown_target_lists_the_known(function: Any) -> None:
    message = f"target: 'mips' is not known; accepted are {', '.join(TARGETS)}"
    with pytest.raises(ValueError, match=re.escape(message)):
        function(BASE, "mips")
