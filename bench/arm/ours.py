"""A layer as this library exports it, a network of one node, or a whole network; with a main that marks its runs."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import lrw
from bench.arm.data import convolved, values
from bench.arm.program import Doubles, Floats, Program
from bench.arm.tools import call
from bench.layers import Layer, Whole, kept
from lrw.export.library import MOST_OUTPUTS
from lrw.geometry import Geometry
from lrw.nets import C3D
from lrw.ops import domain_conv3d, transform_weight
from lrw_kernels import aot as aarch64
from lrw_kernels.aot.targets import find_target
from lrw_kernels.choice.estimate import cheapest_tile
from lrw_kernels.network.graph import INPUT, Network, Node
from lrw_kernels.network.operators import Winograd

_NAME = "layer"
_MAIN = """\
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "lrw_layer.h"

static void *buffer(size_t bytes) {
  void *memory = aligned_alloc(LRW_ALIGNMENT, (bytes + LRW_ALIGNMENT - 1) / LRW_ALIGNMENT * LRW_ALIGNMENT);
  if (!memory) exit(10);
  return memory;
}

static void *contents(const char *path, size_t bytes) {
  void *memory = buffer(bytes);
  FILE *file = fopen(path, "rb");
  if (!file || fread(memory, 1, bytes, file) != bytes || fclose(file) != 0) exit(11);
  return memory;
}

int main(void) {
  const float *input = contents("input", LRW_layer_INPUT_BYTES);
  const void *weights = contents("lrw_layer.weights", LRW_layer_WEIGHTS_BYTES);
  float *output = buffer(LRW_layer_OUTPUT_BYTES);
  void *workspace = buffer(lrw_layer_workspace_bytes());
  int status = lrw_layer_run(input, output, weights, workspace, NULL);
  for (int tag = 0; tag < 3; tag++) {
    for (int run = 0; run < tag; run++) status |= lrw_layer_run(input, output, weights, workspace, NULL);
    syscall(500000 + tag);
  }
  FILE *file = fopen("output", "wb");
  size_t written = file ? fwrite(output, 1, LRW_layer_OUTPUT_BYTES, file) : 0;
  return written == LRW_layer_OUTPUT_BYTES && fclose(file) == 0 ? status : 12;
}
"""


def build(layer: Layer, share_of_columns: float, folder: Path, target: str = "aarch64-linux-gnu") -> Program:
    """`layer` with that share of its columns, drawn at random, as a static program in `folder`.

    Raises RuntimeError where lowering or linking fails or the cross compiler is missing, and for a whole network with
    less than all columns.
    """
    if isinstance(layer, Whole):
        return _whole(layer, share_of_columns, folder, target)
    x, weight = values(layer)
    most_outputs = MOST_OUTPUTS[find_target(target).element]
    tile = cheapest_tile((3, 3, 3), layer.cin, layer.cout, layer.size, most_outputs=most_outputs)
    positions = kept(tile, share_of_columns)
    u = transform_weight(torch.from_numpy(weight), tile, positions).contiguous()
    operator = Winograd(tile, (1, 1, 1), ((layer.cout, positions),), (u.numpy(),))
    node = Node("conv", operator, (INPUT,), (1, *layer.size, layer.cout))
    artifacts = aarch64.build_network(
        Network.single(_NAME, (1, *layer.size, layer.cin), (node,)), folder, target=target
    )

    def output() -> Floats:
        return _written(folder).reshape(*layer.size, layer.cout).transpose(3, 0, 1, 2)

    def expected() -> Doubles:
        if len(positions) == tile.positions:
            return convolved(x, weight)
        geometry = Geometry(tile, (1, 1, 1), positions)
        return domain_conv3d(torch.from_numpy(x).double(), u.double(), None, geometry.arguments, "torch")[0].numpy()

    return _linked(artifacts, x, folder, output, expected)


def _whole(network: Whole, share_of_columns: float, folder: Path, target: str) -> Program:
    if share_of_columns < 1:
        raise RuntimeError("whole networks are measured with all columns only")
    torch.manual_seed(0)
    net = C3D(network.cin, network.cout, network.size, norm=False).eval()
    x = torch.randn(1, network.cin, *network.size)

    def expected() -> Doubles:
        with torch.no_grad():
            scores: Doubles = net.double()(x.double())[0].numpy()
        return scores

    artifacts = lrw.export(net, x, folder, target=target, name=_NAME)
    return _linked(artifacts, x.numpy(), folder, lambda: _written(folder), expected)


def _linked(
    artifacts: aarch64.Artifacts,
    x: Floats,
    folder: Path,
    output: Callable[[], Floats],
    expected: Callable[[], Doubles],
) -> Program:
    """The library with its main, and `x` [1, C, D, H, W] where that reads it."""
    (folder / "marked.c").write_text(_MAIN)
    np.ascontiguousarray(x[0].transpose(1, 2, 3, 0)).tofile(folder / "input")
    call(["aarch64-linux-gnu-gcc", "-O1", "-static", "-o", "main", "marked.c", artifacts.static.name], folder=folder)
    return Program(("./main",), folder, output, expected)


def _written(folder: Path) -> Floats:
    return np.fromfile(folder / "output", np.float32)
