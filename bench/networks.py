"""Time whole networks, accelerated, beside what people use today, correctness first: `python -m bench.networks`.

For each network a gate compares the accelerated one with the network in float64; only then do all candidates take turns
in one process: torch eager contiguous and channels last, torch.compile, OpenVINO and ONNX Runtime in float32, the
accelerated network, the same one trusted (`lrw.trust`), and OpenVINO in 8 bits (NNCF), whose error is shown and whose
time does not count. Networks come from this package, from torchvision and from MONAI; what is not
installed is left out, and said. One row per network can go to a CSV with commit, machine, versions and date. Exit
codes: 0 done, 1 a gate is red, 2 wrong arguments, 130 stopped by Ctrl-C.
"""

import importlib
import importlib.metadata
import sys
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
from lrw import peers
from lrw.timing import interleaved

RTOL = 1e-4  # of the largest output: what lrw.accelerate is asked for, and the gate
NOTHING = "No whole network was measured yet: `python -m bench.networks` does that."
PEERS = {"contiguous": "torch", "channels_last": "torch channels last", "compiled": "torch.compile",
         "openvino": "OpenVINO", "onnxruntime": "ONNX Runtime"}  # fmt: skip
_PACKAGES = ("openvino", "onnxruntime", "nncf")


@dataclass(frozen=True)
class Row(rows.Row):
    """A network: milliseconds of a pass, times as fast as the fastest `peer`, the error over the largest output,
    megabytes of activations that are moved in a pass, and if every operator had one of its own; the 8-bit network's
    time and error stand beside them."""

    network: str
    package: str
    input: str
    contiguous_ms: float
    channels_last_ms: float
    compiled_ms: float | None
    openvino_ms: float | None
    onnxruntime_ms: float | None
    int8_ms: float | None
    int8_error: float | None
    peer: str
    lrw_ms: float
    trusted_ms: float
    speedup: float
    trusted_speedup: float
    error: float
    moved_mb: float | None = None
    apart_mb: float | None = None

    @property
    def line(self) -> str:
        """The row for people."""
        times = {name: getattr(self, f"{name}_ms") for name in PEERS}
        peers = "  ".join(f"{PEERS[name]} {ms:.1f}" for name, ms in times.items() if ms is not None)
        eight = f"  int8 {self.int8_ms:.1f} (error {self.int8_error:.0e})" if self.int8_ms is not None else ""
        ours = f"lrw {self.lrw_ms:.1f} {self.speedup:.2f}x  trusted {self.trusted_ms:.1f} {self.trusted_speedup:.2f}x"
        return f"{self.network:12s} {self.input:16s} {peers}{eight} ms  {ours}  error {self.error:.1e}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the chosen networks and print a line each."""
    arguments = _arguments(argv)
    stamp = certificate.stamp(versions=peer_versions())
    print(certificate.line(stamp))
    with rows.Writer(arguments.csv, stamp) as writer:
        for network in (network for network in NETWORKS if network.name in arguments.networks):
            if find_spec(network.package) is None:
                print(f"{network.name}: left out, {network.package} is not installed", file=sys.stderr)
                continue
            try:
                row = measure(network, arguments.seconds, arguments.peers)
            except Red as red:
                print(red, file=sys.stderr)
                return 1
            writer.write(row)
            print(row.line, flush=True)
    return 0


def measure(network: Network, seconds: float, others: Sequence[str]) -> Row:
    """The row of a network beside those of `others`, keys of MAKERS. Raises Red, with no timing done, where the gate is
    red."""
    torch.manual_seed(0)
    net, x = network.make().eval(), torch.randn(network.shape)
    fast, trusted = lrw.accelerate(net, x, rtol=RTOL), lrw.accelerate(net, x, rtol=RTOL)
    lrw.trust(trusted)
    last, x_last = deepcopy(net).to(memory_format=torch.channels_last_3d), x.to(memory_format=torch.channels_last_3d)
    candidates: dict[str, Callable[[], object]] = {
        "contiguous": lambda: net(x),
        "channels_last": lambda: last(x_last),
        "lrw": lambda: fast(x),
        "trusted": lambda: trusted(x),
    }
    eight = None
    with torch.inference_mode():
        exact = deepcopy(net).double()(x.double())
        error = judged(network.name, fast(x), exact, RTOL * float(exact.abs().max())).largest
    for name in others:
        made = _peer(network.name, name, net, x)
        candidates |= {name: made} if made is not None else {}
    if "int8" in candidates:
        come: Any = candidates["int8"]()
        eight = float((torch.from_numpy(come[0]) - exact).abs().max() / exact.abs().max())
    with torch.inference_mode():
        times = {name: 1e3 * t for name, t in interleaved(candidates, seconds=seconds, rounds=(5, 50)).items()}
    peer = min((name for name in PEERS if name in times), key=times.__getitem__)
    found = {f"{name}_ms": times.get(name) for name in (*PEERS, "int8")}
    return Row(
        network=network.name, package=network.package, input="x".join(map(str, network.shape)), **found,  # type: ignore[arg-type]
        int8_error=eight, peer=PEERS[peer], lrw_ms=times["lrw"], trusted_ms=times["trusted"],
        speedup=times[peer] / times["lrw"], trusted_speedup=times[peer] / times["trusted"], error=error,
        moved_mb=fast.report.moved_bytes / 1e6, apart_mb=fast.report.apart_bytes / 1e6,
    )  # fmt: skip


def _peer(network: str, name: str, net: nn.Module, x: Tensor) -> Callable[[], object] | None:
    """A peer's call of `net` on x; None, and said, where it is not installed or does not take the network."""
    call = peers.made(MAKERS[name], net, (x,))
    if isinstance(call, str):
        print(f"{network}: without {name}: {call}", file=sys.stderr)
        return None
    return call


def openvino_int8(net: nn.Module, args: peers.Args) -> peers.Call:
    """A call of `net` in OpenVINO in 8 bits, quantised by NNCF on inputs of the same kind, without training."""
    (x,) = args
    samples = [torch.randn(x.shape, generator=torch.Generator().manual_seed(i)) for i in range(8)]
    return peers.openvino_call(eight_bits(net, args, samples), args)


def eight_bits(net: nn.Module, args: peers.Args, samples: Sequence[Tensor]) -> Any:
    """`net` as a model of OpenVINO's in 8 bits, quantised by NNCF on `samples`, each as large as the argument."""
    nncf: Any = importlib.import_module("nncf")
    data = nncf.Dataset([sample.numpy() for sample in samples])
    return nncf.quantize(peers.openvino_model(net, args), data, subset_size=len(samples))


MAKERS = {
    "compiled": peers.compiled,
    "openvino": peers.openvino,
    "onnxruntime": peers.onnxruntime,
    "int8": openvino_int8,
}


def table(found: Sequence[Row]) -> list[str]:
    """Whole networks beside torch and OpenVINO, or that there are none."""
    if not found:
        return [NOTHING]
    head = ("network", "input", "torch ms", "torch.compile", "OpenVINO", "ONNX Runtime", "lrw ms", "times as fast",
            "trusted", "OpenVINO int8 (error)", "error", "MB moved (apart)")  # fmt: skip
    lines = [
        [row.network, row.input, f"{min(row.contiguous_ms, row.channels_last_ms):.1f}", number(row.compiled_ms, ".1f"),
         number(row.openvino_ms, ".1f"), number(row.onnxruntime_ms, ".1f"), f"{row.lrw_ms:.1f}",
         f"{row.speedup:.2f}x", f"{row.trusted_speedup:.2f}x",
         "" if row.int8_ms is None else f"{row.int8_ms:.1f} ({row.int8_error:.0e})", f"{row.error:.0e}",
         "" if row.moved_mb is None else f"{row.moved_mb:.0f} ({row.apart_mb:.0f})"]
        for row in found
    ]  # fmt: skip
    ours, trusted = (geometric_mean([getattr(row, of) for row in found]) for of in ("speedup", "trusted_speedup"))
    lines.append(["geometric mean", "", "", "", "", "", "", f"{ours:.2f}x", f"{trusted:.2f}x", "", "", ""])
    return page.tight(page.table(head, lines))


def beside(*machines: Sequence[Row]) -> list[str]:
    """How fast networks are on each of some machines; or that nobody knows."""
    found = [of for of in machines if of]
    if not found:
        return [NOTHING]
    head = ["network", "input"]
    for of in found:
        name = of[0].machine.split(", ")[1:2] or [of[0].machine]
        head += [f"{name[0]}: fastest other, ms", "lrw, ms", "times as fast"]
    by_name = [{row.network: row for row in of} for of in found]
    lines = [
        [name, row.input, *(text for of in by_name for text in _short(of.get(name)))]
        for name, row in {name: row for of in reversed(by_name) for name, row in of.items()}.items()
    ]
    means = [f"{geometric_mean([row.speedup for row in of]):.2f}x" for of in found]
    lines.append(["geometric mean", "", *(text for mean in means for text in ("", "", mean))])
    return page.tight(page.table(head, lines))


def _short(row: Row | None) -> tuple[str, str, str]:
    if row is None:
        return "", "", ""
    fastest = min(ms for name in PEERS if (ms := getattr(row, f"{name}_ms")) is not None)
    return f"{fastest:.1f} ({row.peer})", f"{row.lrw_ms:.1f}", f"{row.speedup:.2f}x"


def peer_versions() -> str:
    """The packages of peers that are installed, for a stamp."""
    there = [name for name in _PACKAGES if find_spec(name) is not None]
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in there)


def _arguments(argv: Sequence[str] | None) -> Namespace:
    parser, known = Parser("bench.networks", __doc__), [network.name for network in NETWORKS]
    some = f"some, by commas: {', '.join(known)}"
    parser.add_argument("--networks", type=names(known), default=known, metavar="NAMES", help=some)
    parser.add_argument("--seconds", type=positive, default=15.0, help="time per network")
    others = f"some, by commas: {', '.join(MAKERS)}"
    parser.add_argument("--peers", type=names([*MAKERS]), default=[*MAKERS], metavar="NAMES", help=others)
    parser.add_argument("--csv", type=file, metavar="FILE", help="write the rows there too")
    return parser.parse_args(argv)


if __name__ == "__main__":
    guarded("bench.networks", "bench.networks")
