"""`lrw compress`: the main job."""

import argparse
import json
from dataclasses import fields
from typing import Any

from lrw.commands import options


def add(commands: Any) -> None:
    """Declare the command in argparse's `commands`."""
    from lrw import nets
    from lrw.job.config import BATCH, SEGMENTED_BATCH, JobConfig
    from lrw.nets.own import ACCEPTED
    from lrw_kernels.aot.targets import TARGETS

    p = commands.add_parser(
        "compress",
        allow_abbrev=False,
        help="train or load a net, convert, prune, retrain, compress, save, export, report",
        description="Train (or load) a 3D network, convert it to Winograd layers, fine-tune a low-rank update while "
        "scoring columns, prune, retrain, compress, save, export as a C library for ARM, and report.",
        formatter_class=options.Defaults,
    )
    default = {f.name: f.default for f in fields(JobConfig)}
    rows: list[tuple[str, Any, str, str]] = [
        (
            "data",
            str,
            "WHAT",
            "'digits', a MedMNIST .npz, an .npz or folder of .npy files with images and labels, a folder of NIfTI "
            "volumes with label maps or by class, or a folder of video clips by class",
        ),
        ("size", options.size, "DxHxW", "of the samples: cubes, volumes, clips (default: the data's own)"),
        (
            "net",
            str,
            "NET",
            f"{', '.join(nets.NAMES)}, {ACCEPTED}; auto: c3d, or unet3d where each voxel has a label; reading one of "
            "your own runs its code",
        ),
        ("width", int, "N", "channels of the first layer of lrw's networks; the papers' have 64"),
        ("weights", str, "FILE", "start from this dense network (.safetensors or .pt) instead of training one"),
        ("tile", options.tile, "M", "outputs per axis: one number or DxHxW"),
        ("rank", int, "S", "rank of the update"),
        ("sparsity", float, "SHARE", "share of the columns to drop, 0 up to 1"),
        ("score", str, "NAME", "product, taylor, weighted_magnitude, weighted_sum or magnitude"),
        (
            "scope",
            str,
            "SCOPE",
            "layer: the same share everywhere; global: ranked across layers; multiplies: that, per multiply saved",
        ),
        (
            "multiplies",
            float,
            "SHARE",
            "of direct convolution's that may be left: a plan chooses tiles and columns, "
            "instead of --tile, --sparsity, --score and --scope",
        ),
        ("stages", int, "N", "cut in this many stages, one per retraining epoch"),
        ("distill", float, "SHARE", "of the loss that follows the dense network while fine-tuning and retraining"),
        ("epochs", int, "N", "epochs of dense training; fine-tuning takes a third as many, retraining half"),
        (
            "batch_size",
            int,
            "N",
            f"samples per step (default: {BATCH}, or {SEGMENTED_BATCH} where each voxel has a label)",
        ),
        ("learning_rate", float, "RATE", "peak learning rate of every stage"),
        ("seed", int, "N", "everything random follows from it"),
        ("out", str, "DIR", "folder for checkpoint, networks, C library, report and figure"),
        ("export", str, "WHAT", "'network' or 'none'"),
        ("target", str, "TARGET", f"what to export for: {', '.join(TARGETS)}"),
    ]
    for name, kind, metavar, text in rows:
        option = "--" + name.replace("_", "-")
        p.add_argument(option, action=_Given, type=kind, metavar=metavar, default=default[name], help=text)
    p.add_argument("--trained", action=_Given, nargs=0, const=True, default=False, help="the network that a function "
                   "of one's own gives is trained already (so is one with --weights, or of a .pt2 file)")  # fmt: skip
    p.add_argument(
        "--no-calibration",
        dest="calibration",
        action=_Given,
        nargs=0,
        const=False,
        default=True,
        help="cut only: do not fit the columns that stay to what the network gave before the cut",
    )
    p.add_argument("--resume", action="store_true", help="go on with the run in --out, with its options")
    p.add_argument(
        "--fresh",
        action="store_true",
        help="start over: remove what an earlier run left in --out, and nothing else there",
    )
    p.add_argument("--json", action="store_true", help="print the report as JSON on stdout")
    p.add_argument("--quiet", action="store_true", help="no progress")
    p.set_defaults(
        run=_compress, stopped="the last checkpoint, if there is one yet, is whole: --resume goes on from it"
    )


class _Given(argparse.Action):
    """Stores a value, and that it was given."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        setattr(namespace, self.dest, self.const if self.nargs == 0 else values)
        namespace.given = {*getattr(namespace, "given", ()), self.dest}


def _compress(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from lrw.job import JobConfig, resumed, run
    from lrw.progress import Reporter

    if arguments.resume and arguments.fresh:
        raise ValueError("--resume and --fresh: one goes on, the other starts over; give one of them")
    values = {f.name: getattr(arguments, f.name) for f in fields(JobConfig)}
    given = {name: values[name] for name in getattr(arguments, "given", ())}
    config = resumed(arguments.out, given) if arguments.resume else JobConfig(**values)
    reporter = Reporter(Console(stderr=True), quiet=arguments.quiet)
    report = run(config, reporter, resume=arguments.resume, fresh=arguments.fresh)
    if arguments.json:
        print(json.dumps(report.to_dict(), indent=1))
    else:
        report.show(options.results_console())
    return 0
