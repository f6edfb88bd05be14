"""An object becomes a shared library, with whatever linker is installed."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lrw_kernels.aot.guard import check_object
from lrw_kernels.aot.targets import Target

# 16 KiB pages are what Android 15 asks of libraries; they load on 4 KiB systems too.
_PAGES = ("-z", "max-page-size=16384", "-z", "noexecstack")
_OPTIONS = ("--no-undefined", "--hash-style=both", "--build-id=sha1", "-s", *_PAGES)
_MESSAGE_LINES = 4


@dataclass(frozen=True)
class Linked:
    """A shared library, how it was linked and by which version; or None and why, without a linker."""

    library: Path | None
    note: str
    version: str = ""


def link_shared(source: Path, library: Path, name: str, target: Target) -> Linked:
    """Link `source` to `library`, of network `name`; its library is None without a linker for `target`.

    Raises RuntimeError when linkers are there but all fail, or the library exports or needs too much. A clang
    that fails does not count: it is there on many machines without a linker for `target`.
    """
    if target.form != "elf":
        return Linked(None, f"libraries for {target.name} are linked by its own tools; the object is complete")
    candidates, failures = linkers(target), list[str]()
    for linker in candidates:
        command = _command(linker, source, library)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            check_object(library.read_bytes(), name, target)
            return Linked(library, f"linked by {Path(linker[0]).name}", _version(linker))
        failures += [" ".join(command), *(done.stdout + done.stderr).splitlines()[-_MESSAGE_LINES:]]
    if any(Path(linker[0]).name != "clang" for linker in candidates):
        raise RuntimeError(f"linking {library.name} for {target.name} failed:\n" + "\n".join(failures))
    names = ", ".join([*_drivers(target), f"{target.prefix}ld", "ld.lld", "clang"])
    reason = f"no linker for {target.name} on PATH, looked for {names}; the object is complete"
    return Linked(None, "\n".join([reason, *failures]))


def linkers(target: Target) -> list[list[str]]:
    """The commands that may link for `target`, best first: installed programs with their target option."""
    found = [[path] for name in _drivers(target) if (path := shutil.which(name))]
    found += [[path, "-m", target.emulation] for path in _plain_linkers(target)]
    clang = shutil.which("clang")
    return found + ([[clang, f"--target={target.triple}"]] if clang else [])


def _drivers(target: Target) -> list[str]:
    return [f"{target.prefix}gcc", *(("gcc", "cc") if target.is_host else ())]


def _plain_linkers(target: Target) -> list[str]:
    folders = [Path(folder) for folder in os.get_exec_path() if folder]
    versions = {path.name for folder in folders for path in folder.glob("ld.lld-[0-9]*")}
    names = [f"{target.prefix}ld", "ld.lld", *sorted(versions, reverse=True)]
    return [path for name in names if (path := shutil.which(name))]


def _command(linker: list[str], source: Path, library: Path) -> list[str]:
    options = [*_OPTIONS, "-soname", library.name]
    is_plain = "-m" in linker
    passed = options if is_plain else ["-nostdlib", "-Wl," + ",".join(options)]
    return [*linker, "-shared", *passed, "-o", str(library), str(source)]


def _version(linker: list[str]) -> str:
    """The first line a linker says of its version; a compiler passes the question on."""
    option = "--version" if "-m" in linker else "-Wl,--version"
    done = subprocess.run([*linker, option], capture_output=True, text=True, check=False)
    return next((line.strip() for line in done.stdout.splitlines() if line.strip()), "unknown")
