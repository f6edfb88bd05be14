"""From the retrained network to files and numbers: compress, save, export, time, report, draw."""

from contextlib import ExitStack
from functools import partial
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lrw.accelerate import accelerate
from lrw.checkpoint import load, save
from lrw.compress import compress, measure
from lrw.data import Volumes
from lrw.export import compare, export
from lrw.job import figure, folder
from lrw.job.config import JobConfig
from lrw.job.metrics import evaluate
from lrw.job.report import ExportRow, LayerRow, NetworkRow, Report
from lrw.job.sizes import multiplies
from lrw.job.state import JobState, plain
from lrw.layers import evaluating, input_sizes, named_layers, winograd_layers
from lrw.nets import is_own
from lrw.nn import LowRankWinogradConv3d, WinogradLayer
from lrw.progress import Reporter
from lrw.timing import interleaved, turns
from lrw_kernels.winograd.tile import Triple

if TYPE_CHECKING:
    from lrw_kernels.aot import Artifacts


def finish(
    config: JobConfig, volumes: Volumes, dense: nn.Module, net: nn.Module, state: JobState, reporter: Reporter
) -> Report:
    """Write the compressed network, its library, report and figure into `config.out`; returns the report."""
    out = Path(config.out)
    example = next(volumes.batches("test", 1))[0]
    compressed = compress(net, example)
    saved = out / folder.COMPRESSED
    save(compressed, saved)
    state.accuracy["compressed"] = plain(evaluate(load(saved, dense), volumes, "test"))
    sizes = input_sizes(compressed, example)
    rows = _time_layers(dense, net, compressed, sizes, reporter)
    report = Report(
        config=config.to_dict(),
        data=_described(volumes),
        accuracy=state.accuracy,
        seconds={name: round(value, 2) for name, value in state.seconds.items()},
        parameters=state.parameters,
        layers=rows,
        networks=_networks({"dense": (dense, out / folder.DENSE), "compressed": (compressed, saved)}, example),
        export=_export(config, compressed, example, reporter),
        history=state.history,
        files={"compressed": str(saved), "dense": str(out / folder.DENSE), "report": str(out / folder.REPORT)},
        threads=torch.get_num_threads(),
    )
    geometries = {name: layer.geometry for name, layer in winograd_layers(net).items()}
    drawn = figure.draw(report, geometries, out / folder.FIGURE)
    report.files |= {"figure": str(drawn)} if drawn else {}
    report.write(out / folder.REPORT)
    return report


def _described(volumes: Volumes) -> dict[str, Any]:
    sizes = {"channels": volumes.channels, "classes": len(volumes.classes), "size": list(volumes.size)}
    return {"name": volumes.name, "segmented": volumes.segmented, **sizes, **volumes.counts}


def _time_layers(
    dense: nn.Module, net: nn.Module, compressed: nn.Module, sizes: dict[str, Triple], reporter: Reporter
) -> list[LayerRow]:
    """Each compressed layer against F.conv3d of the layer it came from, batch 1, the better of torch's two layouts."""
    convs, trained = named_layers(dense, nn.Conv3d), named_layers(net, WinogradLayer)
    small = named_layers(compressed, WinogradLayer)
    rows = []
    with reporter.bar("timing layers", len(small)) as update:
        for done, (name, layer) in enumerate(small.items(), 1):
            x = torch.randn(1, layer.in_channels, *sizes[name])
            times = _race(convs[name], layer, x)
            size = measure(name, trained[name], sizes[name])
            rows.append(
                LayerRow.of(size, _trainable(trained[name]), min(times["conv3d"], times["conv3d_cl"]), times["lrw"])
            )
            update(done)
    return rows


def _race(conv: nn.Conv3d, layer: WinogradLayer, x: Tensor) -> dict[str, float]:
    """Median milliseconds: F.conv3d contiguous and channels_last_3d, and the Winograd layer."""
    last = x.to(memory_format=torch.channels_last_3d)
    weight = conv.weight.detach()
    weight_last = weight.to(memory_format=torch.channels_last_3d)
    with torch.inference_mode():
        seconds = interleaved(
            {
                "conv3d": lambda: F.conv3d(x, weight, conv.bias, padding=conv.padding),
                "conv3d_cl": lambda: F.conv3d(last, weight_last, conv.bias, padding=conv.padding),
                "lrw": lambda: layer(last),
            },
            seconds=0.5,
        )
    return {name: 1e3 * value for name, value in seconds.items()}


def _networks(made: dict[str, tuple[nn.Module, Path]], example: Tensor) -> list[NetworkRow]:
    """Of each network its size, and how long one sample takes: as torch computes it, and accelerated, as users would
    run it; all in turns with the first one, as torch computes it."""
    with torch.inference_mode(), ExitStack() as modes:
        for net, _ in made.values():
            modes.enter_context(evaluating(net))
        fast = {name: accelerate(net, example, measure=False) for name, (net, _) in made.items()}
        (first, (dense, _)), *_ = made.items()
        calls = {"": partial(dense, example), **{name: partial(net, example) for name, net in fast.items()}}
        times = {name: 1e3 * np.array(values) for name, values in turns(calls, seconds=3.0).items()}
        rows = [NetworkRow.of(first, "", made[first][1], multiplies(dense, example), times[""], times[""])]
        for name, (net, path) in made.items():
            counted = None if net is dense else multiplies(net, example)
            rows.append(NetworkRow.of(name, ", accelerated", path, counted, times[name], times[""]))
    return rows


def _trainable(layer: WinogradLayer) -> int:
    if isinstance(layer, LowRankWinogradConv3d):
        return layer.Gr.numel() + layer.Gc.numel()
    return sum(p.numel() for p in layer.parameters() if p.requires_grad)


def _export(config: JobConfig, compressed: nn.Module, example: Tensor, reporter: Reporter) -> ExportRow | None:
    """Lower the whole compressed network and, where the tools are there, run it."""
    if config.export == "none":
        return None
    reporter.say(f"exporting the network for {config.target}")
    try:
        name = folder.OWN if is_own(config.net) else config.net
        built = export(compressed, example, Path(config.out) / folder.EXPORT, name=name, target=config.target)
    except (RuntimeError, ValueError) as error:  # no compiler, or an operator without a kernel: the rest stands
        return ExportRow(config.target, None, None, "", f"not exported: {error}", None)
    check, difference = _check_exported(built, compressed, example)
    shared = None if built.shared is None else str(built.shared)
    return ExportRow(config.target, str(built.header), shared, built.note, check, difference)


def _check_exported(built: "Artifacts", net: nn.Module, example: Tensor) -> tuple[str, float | None]:
    """(what came of running the library here, largest difference from torch over the largest output)."""
    from lrw_kernels.aot import missing_tools

    lacking = missing_tools(built.target.name)
    if lacking:
        return f"not run here: needs {', '.join(lacking)}", None
    try:
        how, difference = compare(built, net, example)
        return (how, difference) if isfinite(difference) else (f"{how}, and nothing like torch", None)
    except RuntimeError as error:  # an emulator that does not work says nothing about the library
        return f"not run here: {error}", None
