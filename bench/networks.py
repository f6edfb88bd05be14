"""Time whole networks, accelerated, beside torch and OpenVINO, correctness first: `python -m bench.networks`.

For each network a gate compares the accelerated one with the network in float64; only then do all candidates take turns
in one process: torch eager contiguous and channels last, OpenVINO in float32 where it is installed, the accelerated
network, and the same one trusted (`lrw.trust`). Networks come from this package, from torchvision and from MONAI; those
whose package is missing are left out, and said. One row per network can go to a CSV with commit, machine, versions and
date. Exit codes: 0 done, 1 a gate is red, 2 wrong arguments, 130 stopped by Ctrl-C.
"""

import importlib
import sys
import warnings
from argparse import Namespace
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from importlib.util import find_spec
from statistics import geometric_mean
from typing import Any

import torch
from torch import Tensor, nn

import lrw
from bench import certificate, page, rows
from bench.command import Parser, file, guarded, names, positive
from bench.gate import Red, judged
from bench.layers import NETWORKS, Network
from bench.page import number
from lrw.timing import interleaved

WITHIN = 1e-5  # of the largest output
NOTHING = "No whole network was measured yet: `python -m bench.networks` does that."


@dataclass(frozen=True)
class Row(rows.Row):
    """A network: milliseconds of a pass, times as fast as the best of torch and OpenVINO, the error over the largest
    output."""

    network: str
    package: str
    input: str
    torch_form: str
    torch_ms: float
    openvino_ms: float | None
    lrw_ms: float
    trusted_ms: float
    speedup: float
    trusted_speedup: float
    error: float

    @property
    def line(self) -> str:
        """The row for people."""
        peers = f"torch {self.torch_ms:7.1f} ms ({self.torch_form})" + number(self.openvino_ms, "7.1f", " ms OpenVINO")
        ours = f"lrw {self.lrw_ms:7.1f} ms {self.speedup:5.2f}x  trusted {self.trusted_ms:7.1f} ms"
        return (
            f"{self.network:10s} {self.input:16s} {peers}  {ours} {self.trusted_speedup:5.2f}x  error {self.error:.1e}"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the chosen networks and print a line each."""
    arguments = _arguments(argv)
    stamp = certificate.stamp(versions=_peer_version())
    print(certificate.line(stamp))
    with rows.Writer(arguments.csv, stamp) as writer:
        for network in (network for network in NETWORKS if network.name in arguments.networks):
            if find_spec(network.package) is None:
                print(f"{network.name}: left out, {network.package} is not installed", file=sys.stderr)
                continue
            try:
                row = measure(network, arguments.seconds)
            except Red as red:
                print(red, file=sys.stderr)
                return 1
            writer.write(row)
            print(row.line, flush=True)
    return 0


def measure(network: Network, seconds: float) -> Row:
    """The row of a network. Raises Red, with no timing done, where the gate is red."""
    torch.manual_seed(0)
    net, x = network.make().eval(), torch.randn(network.shape)
    fast, trusted = lrw.accelerate(net, x), lrw.accelerate(net, x)
    lrw.trust(trusted)
    last, x_last = deepcopy(net).to(memory_format=torch.channels_last_3d), x.to(memory_format=torch.channels_last_3d)
    candidates: dict[str, Callable[[], object]] = {
        "contiguous": lambda: net(x),
        "channels_last": lambda: last(x_last),
        "lrw": lambda: fast(x),
        "trusted": lambda: trusted(x),
    }
    with torch.inference_mode():
        exact = deepcopy(net).double()(x.double())
        error = judged(network.name, fast(x), exact, WITHIN * float(exact.abs().max())).largest
        if find_spec("openvino") is not None:
            candidates["openvino"] = openvino(net, x)
        times = {name: 1e3 * t for name, t in interleaved(candidates, seconds=seconds, rounds=(5, 50)).items()}
    form = min(("contiguous", "channels_last"), key=times.__getitem__)
    peer = min(times[name] for name in (form, "openvino") if name in times)
    return Row(network.name, network.package, "x".join(map(str, network.shape)), form, times[form],
               times.get("openvino"), times["lrw"], times["trusted"], peer / times["lrw"], peer / times["trusted"],
               error)  # fmt: skip


def openvino(net: nn.Module, x: Tensor) -> Callable[[], object]:
    """A call of `net` on `x` in OpenVINO, float32, with as many threads as torch has."""
    runtime: Any = importlib.import_module("openvino")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = runtime.convert_model(net, example_input=x)
    model.reshape({model.inputs[0]: list(x.shape)})
    options = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "PERFORMANCE_HINT": "LATENCY"}
    compiled = runtime.Core().compile_model(model, "CPU", {**options, "INFERENCE_PRECISION_HINT": "f32"})
    request, numbers = compiled.create_infer_request(), x.numpy()
    return lambda: request.infer([numbers])


def table(found: Sequence[Row]) -> list[str]:
    """Whole networks beside torch and OpenVINO, or that there are none."""
    if not found:
        return [NOTHING]
    head = ("network", "input", "torch ms", "OpenVINO ms", "lrw ms", "times as fast", "trusted ms", "times as fast")
    lines = [
        [row.network, row.input, f"{row.torch_ms:.1f}", number(row.openvino_ms, ".1f"), f"{row.lrw_ms:.1f}",
         f"{row.speedup:.2f}x", f"{row.trusted_ms:.1f}", f"{row.trusted_speedup:.2f}x"]
        for row in found
    ]  # fmt: skip
    ours, trusted = (geometric_mean([getattr(row, of) for row in found]) for of in ("speedup", "trusted_speedup"))
    lines.append(["geometric mean", "", "", "", "", f"{ours:.2f}x", "", f"{trusted:.2f}x"])
    return page.tight(page.table(head, lines))


def _peer_version() -> str:
    if find_spec("openvino") is None:
        return ""
    return f"openvino {importlib.import_module('importlib.metadata').version('openvino')}"


def _arguments(argv: Sequence[str] | None) -> Namespace:
    parser, known = Parser("bench.networks", __doc__), [network.name for network in NETWORKS]
    some = f"some, by commas: {', '.join(known)}"
    parser.add_argument("--networks", type=names(known), default=known, metavar="NAMES", help=some)
    parser.add_argument("--seconds", type=positive, default=15.0, help="time per network")
    parser.add_argument("--csv", type=file, metavar="FILE", help="write the rows there too")
    return parser.parse_args(argv)


if __name__ == "__main__":
    guarded("bench.networks", "bench.networks")
