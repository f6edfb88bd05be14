"""`lrw export`: a saved network as a C library."""

import argparse
import json
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lrw.commands import exported, options
from lrw.commands.networks import NETS, Source, from_run
from lrw.export import compare, export
from lrw.export.check import LIMITS, check_tools
from lrw.export.library import MOST_THREADS
from lrw.nets import exported as exported_program
from lrw.trace.arguments import arguments as checked

if TYPE_CHECKING:
    from lrw_kernels.aot import Artifacts

_ARGUMENTS = ("target", "threads", "name", "out", "tile")


def add(commands: Any) -> None:
    """Declare the command in argparse's `commands`."""
    from lrw_kernels.aot.targets import TARGETS

    p = commands.add_parser(
        "export",
        allow_abbrev=False,
        help="compile a saved network to a C library, without Python",
        description="Compile a network to a library with a C header, weights, manifest, example program and CMake "
        "file. With the folder of a finished lrw compress, or a file of torch.export.save, no other option is needed.",
    )
    p.add_argument("weights", metavar="WEIGHTS", help="file of lrw.save, plain state dict (.safetensors, .pt), "
                   "folder of lrw compress, or FILE.pt2 of torch.export.save, which may run code when it is "
                   "read")  # fmt: skip
    net = p.add_argument_group("the network (where WEIGHTS is a file)")
    net.add_argument("--net", metavar="NET", help=f"{NETS}, which gives the plain network")
    net.add_argument("--in-channels", type=int, metavar="N", help="channels of the input")
    net.add_argument("--classes", type=int, metavar="N", help="channels of the output")
    net.add_argument("--width", type=int, metavar="N", help="channels of the first layer (default: the network's own)")
    net.add_argument("--size", type=options.size, metavar="DxHxW", help="of the input")
    library = p.add_argument_group("the library")
    library.add_argument("--batch", type=int, default=1, metavar="N", help="samples per run (default: 1)")
    library.add_argument("--tile", type=_tile, default="auto", metavar="M", help="outputs per axis of what is not yet "
                         "in the Winograd domain: one number, DxHxW or auto (default)")  # fmt: skip
    library.add_argument("--target", default="aarch64-linux-gnu", metavar="TARGET",
                         help=f"{', '.join(TARGETS)} (default: the first)")  # fmt: skip
    library.add_argument("--threads", type=int, default=1, metavar="N",
                         help=f"at most this many, up to {MOST_THREADS} (default: 1)")  # fmt: skip
    library.add_argument("--name", metavar="NAME", help="in C names (default: the network's)")
    library.add_argument("--out", default="lrw-export", metavar="DIR", help="folder (default: lrw-export)")
    p.add_argument("--check", action="store_true", help="run the library here, or under QEMU, and compare with torch; "
                   "fails, with the library left where it is, where they differ")  # fmt: skip
    p.add_argument("--json", action="store_true", help="print the manifest, paths and sizes as JSON on stdout")
    p.set_defaults(run=_run, stopped="a library is written whole or not at all")


def _tile(text: str) -> str | int | tuple[int, int, int]:
    return text if text == "auto" else options.tile(text)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.check:
        check_tools(arguments.target, "--check")
    try:
        built, check = _built(arguments, *_taken(arguments))
    except ValueError as error:
        option = str(error).partition(":")[0]  # lrw.export names its arguments, some of which are options here
        raise ValueError(f"{'--' * (option in _ARGUMENTS)}{error}") from error
    except RuntimeError as error:  # the compiler, linker or emulator failed
        print(f"lrw export: {error}", file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps(exported.described(built, check), indent=1, allow_nan=False))
    else:
        exported.show(options.results_console(), built, check)
    if check is None or check.passed:
        return 0
    print(f"lrw export: --check: {check.verdict}; the library stays in {arguments.out}", file=sys.stderr)
    return 1


def _taken(arguments: argparse.Namespace) -> tuple[nn.Module, Any, str]:
    """The network with its weights in eval mode, an example input for it, its name. Raises ValueError, for sizes that
    torch cannot make too, and what loading raises."""
    said = Source(arguments.net, arguments.in_channels, arguments.classes, arguments.width, arguments.size)
    weights = Path(arguments.weights)
    if weights.suffix == exported_program.SUFFIX:
        return _exported(arguments, said, weights)
    source, file = from_run(weights, said) if weights.is_dir() else (said, weights)
    try:
        return source.build(file).eval(), source.example(arguments.batch), arguments.name or source.name
    except (RuntimeError, MemoryError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        size = "x".join(map(str, source.size or ()))
        raise ValueError(f"--size: {size}: the network or its input cannot be made here ({reason})") from error


def _exported(arguments: argparse.Namespace, said: Source, path: Path) -> tuple[nn.Module, Any, str]:
    """The same of a file of torch.export.save, which says it all. Raises ValueError for options it leaves nothing to,
    and for a network that was exported with other arguments than libraries take."""
    given = [f.name for f in fields(said) if getattr(said, f.name) is not None] + ["batch"] * (arguments.batch != 1)
    if given:
        option = given[0].replace("_", "-")
        raise ValueError(f"--{option}: {path} says it, as the network was exported; accepted is nothing")
    net, examples = exported_program.read(str(path))
    if examples is None:
        raise ValueError(f"weights: {path} holds no example of its input; accepted are files that do")
    args, kwargs = examples
    if kwargs:
        names = ", ".join(kwargs)
        raise ValueError(f"weights: {path} was exported with arguments by name ({names}); accepted are those by place")
    try:
        checked(args)
    except ValueError as error:
        raise ValueError(f"weights: {path}: {error}") from error
    return net, pytree.tree_map_only(Tensor, Tensor.detach, args), arguments.name or path.stem


def _built(
    arguments: argparse.Namespace, net: nn.Module, example: Any, name: str
) -> tuple["Artifacts", exported.Check | None]:
    """The library, and what came of running it where that is asked for. Raises what `lrw.export` and running it do."""
    from rich.console import Console

    console = Console(stderr=True)
    with console.status(f"compiling {name} for {arguments.target}") as status:
        built = export(net, example, arguments.out, target=arguments.target, name=name, threads=arguments.threads,
                       tile=arguments.tile)  # fmt: skip
        if not arguments.check:
            return built, None
        status.update(f"running {name}")
        return built, exported.Check(*compare(built, net, example), limit=LIMITS[built.target.element])
