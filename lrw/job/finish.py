"""From the retrained network to files and numbers: compress, save, export, time, report, draw."""

from functools import partial
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from lrw.job.report import ExportRow, LayerRow, Report
from lrw.job.state import JobState, plain
from lrw.job.training import evaluate
from lrw.layers import evaluating, input_sizes, named_layers, winograd_layers
from lrw.nn import LowRankWinogradConv3d, WinogradLayer
from lrw.progress import Reporter
from lrw.timing import interleaved
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
        network_ms=_time_networks(dense, compressed, example),
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
    return {"name": volumes.name, **sizes, **volumes.counts}


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


def _time_networks(dense: nn.Module, compressed: nn.Module, example: Tensor) -> dict[str, float]:
    """Median milliseconds of one sample: through the dense network as torch computes it, and through both as users
    would run them, accelerated."""
    with torch.inference_mode(), evaluating(dense), evaluating(compressed):
        fast, small = (accelerate(net, example, measure=False) for net in (dense, compressed))
        networks = {"dense": dense, "accelerated": fast, "compressed": small}
        calls = {name: partial(net, example) for name, net in networks.items()}
        seconds = interleaved(calls, seconds=2.0)
    return {name: round(1e3 * value, 3) for name, value in seconds.items()}


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
        built = export(compressed, example, Path(config.out) / folder.EXPORT, name=config.net, target=config.target)
    except RuntimeError as error:  # the compiler or linker failed: the rest of the job stands
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
