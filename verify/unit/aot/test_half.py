"""Libraries with the Winograd domain in half precision: within its error, and refused by processors without it."""

from pathlib import Path

import numpy as np
import pytest

from lrw_kernels import reference
from lrw_kernels.aot import build_network, run_network
from lrw_kernels.aot.abi import Status
from lrw_kernels.network.graph import INPUT, Network, Node
from lrw_kernels.network.operators import Winograd
from lrw_kernels.winograd import Tile, domain_error
from verify.programs.exported import need

HALF = "aarch64-linux-gnu-fp16"


def test_half_precision_is_within_its_error_and_asks_the_processor(tmp_path: Path) -> None:
    need(target=HALF)
    tile, draw = Tile.of(2), np.random.default_rng(3).standard_normal
    kept = tuple(range(tile.positions))
    x, u, bias = (draw(s).astype(np.float32) for s in ((1, 4, 5, 6, 5), (64, 5, 9), 9))
    node = Node("conv", Winograd(tile, (1, 1, 1), ((9, kept),), (u,), bias), (INPUT,), (1, 4, 5, 6, 9))
    made = build_network(Network.single("half", (1, 4, 5, 6, 5), (node,)), tmp_path, target=HALF)
    exact = reference.winograd_conv3d(x.astype(np.float64), u.astype(np.float64), tile, (1, 1, 1), kept) + bias
    norms = np.linalg.norm(u.astype(np.float64), axis=1).max(axis=1)
    eps = float(np.finfo(np.float16).eps)
    bound = domain_error(tile, kept, norms, float(abs(x).max()), 5, eps) + eps * abs(exact).max()
    (y,) = run_network(made, x, cpu="cortex-a76")
    error = abs(y - exact).max()
    assert error <= bound
    assert error > 1e-5 * abs(exact).max(), "computed in half precision, not in float32"
    with pytest.raises(RuntimeError, match=f"exit status {int(Status.UNSUPPORTED_CPU)}, LRW_UNSUPPORTED_CPU$"):
        run_network(made, x, cpu="cortex-a53")
