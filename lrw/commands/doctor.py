"""`lrw doctor`: what is here, what of lrw works with it, and what is missing for the rest."""

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from lrw import backends, peers
from lrw.ops import winograd_conv3d
from lrw.version import __version__

LIMIT = 1e-4  # of the largest output, in float32
OK, MISSING, WRONG = "ok", "missing", "wrong"
PACKAGES = ("torch", "numpy", "numba", "llvmlite", "triton")
EXTRAS = {"data": ("sklearn", "nibabel", "av"), "plot": ("matplotlib",), "gpu": ("triton",)}


@dataclass(frozen=True)
class Finding:
    """What was looked at, how it is (OK, MISSING, WRONG), and in words; `advice` says what would change it."""

    what: str
    state: str
    said: str
    advice: str = ""


def add(commands: Any) -> None:
    """Declare the command in argparse's `commands`."""
    p = commands.add_parser(
        "doctor",
        allow_abbrev=False,
        help="say what works on this machine, and what is missing for the rest",
        description="Look at processor, versions, kernels, their cache, GPU, tools for export and optional packages; "
        "compute a small layer and hold it against torch. Exit code 1 where something is wrong.",
    )
    p.add_argument("--json", action="store_true", help="print the findings as JSON on stdout")
    p.set_defaults(run=_run, stopped="nothing was changed")


def _run(arguments: argparse.Namespace) -> int:
    found = findings()
    if arguments.json:
        print(json.dumps([asdict(finding) for finding in found], indent=1))
    else:
        width = max(len(finding.what) for finding in found)
        for finding in found:
            print(f"{finding.what:{width}}  {finding.state:7}  {finding.said}")
            if finding.advice:
                print(f"{'':{width}}  {'':7}  {finding.advice}")
    return int(any(finding.state == WRONG for finding in found))


def findings() -> list[Finding]:
    """Everything, what all else depends on first."""
    looks: dict[str, Callable[[], Finding | list[Finding]]]
    looks = {"versions": _versions, "processor": _processor, "kernels": _kernels, "cache": _cache, "a layer": _layer,
             "writes to weights": _writes, "GPU": _gpu, "export": _export, "extras": _extras,
             "to compare with": _peers}  # fmt: skip
    found: list[Finding] = []
    for what, look in looks.items():
        try:
            seen = look()
        except Exception as error:  # of any class: what a broken installation raises is what is asked for
            reason = (str(error).splitlines() or [""])[0]
            seen = Finding(what, WRONG, f"{type(error).__name__}: {reason}")
        found += [seen] if isinstance(seen, Finding) else seen
    return found


def _versions() -> Finding:
    there = ", ".join(f"{name} {_version(name)}" for name in PACKAGES if find_spec(name) is not None)
    return Finding("versions", OK, f"lrw {__version__}, Python {platform.python_version()}, {there}")


def _version(name: str) -> str:
    """Of a package, whatever it is installed as."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return str(getattr(importlib.import_module(name), "__version__", "of unknown version"))


def _processor() -> Finding:
    cores, threads = os.cpu_count() or 1, torch.get_num_threads()
    said = f"{platform.machine()}, {_model()}{cores} cores; torch uses {threads} threads, and so does lrw"
    if threads > cores:
        return Finding("processor", WRONG, said, "more threads than cores wait for each other: torch.set_num_threads")
    return Finding("processor", OK, said)


def _model() -> str:
    """What the system calls the processor, where it says so."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() + ", " for line in lines if line.startswith("model name")), "")


def _kernels() -> Finding:
    from lrw_kernels.codegen.machine import host

    try:
        return Finding("kernels", OK, f"{host().name}; backends: {', '.join(backends.available())}")
    except RuntimeError as error:
        advice = (
            "layers are computed by torch's operators (backend 'torch'); lrw.accelerate and lrw.export gain nothing"
        )
        return Finding("kernels", MISSING, str(error), advice)


def _cache() -> Finding:
    from lrw_kernels.codegen import store

    accepted = "LRW_CACHE_DIR may name a folder that only this user may write to"
    try:
        folder = store.folder()
        files = [path.stat() for path in folder.iterdir() if path.is_file()]
    except store.Refused as error:
        return Finding("cache", WRONG, f"kernels are compiled in every process: {error.strerror}", accepted)
    except OSError as error:
        return Finding("cache", WRONG, f"kernels are compiled in every process: {error}", accepted)
    size = sum(file.st_size for file in files) / 2**20
    return Finding("cache", OK, f"{folder}: {len(files)} files, {size:.1f} MiB; it can be removed at any time")


def _layer() -> Finding:
    """A layer as users would call it, first and again, beside torch."""
    generator = torch.Generator().manual_seed(0)
    x, w = (torch.randn(size, generator=generator) for size in ((1, 16, 8, 16, 16), (16, 16, 3, 3, 3)))
    with torch.inference_mode():
        start = time.perf_counter()
        y = winograd_conv3d(x, w, padding=1)
        first = time.perf_counter() - start
        expected = F.conv3d(x, w, padding=1)
    error = float((y - expected).abs().max() / expected.abs().max())
    said = f"3x3x3, 16 to 16 channels, in {first:.2f} s at first (kernels compiled or read), error {error:.0e}"
    if not error <= LIMIT:
        return Finding("a layer", WRONG, said, f"accepted is an error up to {LIMIT:g}: please report this")
    return Finding("a layer", OK, said)


def _writes() -> Finding:
    """How accelerated networks find that weights were written."""
    from lrw_kernels.codegen import written

    if written.supported():
        return Finding("writes to weights", OK, "noted by the system: passes do not read weights again")
    said = "not noted by the system: each pass reads all weights"
    return Finding("writes to weights", MISSING, said, "Linux from 6.7 on does, where userfaultfd is allowed")


def _gpu() -> Finding:
    if not torch.cuda.is_available():
        return Finding("GPU", MISSING, "none that torch sees", "nothing here needs one")
    name = torch.cuda.get_device_name()
    if "triton" in backends.available(torch.device("cuda")):
        return Finding("GPU", OK, name)
    return Finding("GPU", MISSING, f"{name}, without Triton", "pip install 'lrw[gpu]'")


def _export() -> list[Finding]:
    """For which targets libraries can be run, and so checked, here; they can be built for all."""
    from lrw_kernels.aot import missing_tools
    from lrw_kernels.aot.targets import TARGETS

    lacking = {name: missing_tools(name) for name in TARGETS}
    there = [name for name, tools in lacking.items() if not tools]
    found = [
        Finding("export", OK, f"builds for all of {len(TARGETS)} targets; runs and checks here: {', '.join(there)}")
    ]
    tools = lacking["aarch64-linux-gnu"]
    if tools:
        debian = "Debian has them in qemu-user, gcc-aarch64-linux-gnu and libc6-dev-arm64-cross"
        found.append(Finding("export to ARM", MISSING, f"to run and check: {', '.join(tools)}", debian))
    return found


def _extras() -> list[Finding]:
    found = []
    for extra, modules in EXTRAS.items():
        absent = [module for module in modules if find_spec(module) is None]
        advice = f"pip install 'lrw[{extra}]'" if absent else ""
        said = f"without {', '.join(absent)}" if absent else ", ".join(modules)
        found.append(Finding(f"extra {extra}", MISSING if absent else OK, said, advice))
    return found


def _peers() -> Finding:
    there = peers.installed()
    absent = [name for name in peers.MAKERS if name not in there]
    more = f"; not installed: {', '.join(absent)}" if absent else ""
    return Finding("to compare with", OK, f"{', '.join(there)}{more}")
