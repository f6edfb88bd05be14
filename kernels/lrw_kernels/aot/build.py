"""A network's files: libraries, header, weights, manifest, and what one needs to build with them."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

from lrw_kernels.aot import abi, example
from lrw_kernels.aot.archive import archive
from lrw_kernels.aot.code import Code
from lrw_kernels.aot.header import header_text
from lrw_kernels.aot.link import link_shared
from lrw_kernels.aot.lower import lower
from lrw_kernels.aot.manifest import Artifacts, manifest_text
from lrw_kernels.aot.ports import Ports
from lrw_kernels.aot.targets import Target, find_target
from lrw_kernels.network.graph import Network
from lrw_kernels.program.assemble import assemble
from lrw_kernels.program.program import Program

PathLike = str | os.PathLike[str]


def build_network(
    network: Network,
    out_dir: PathLike,
    *,
    target: str = "aarch64-linux-gnu",
    threads: int = 1,
    versions: Mapping[str, str] = MappingProxyType({}),
) -> Artifacts:
    """Lower, link and write `network` as a library for `target`, for up to `threads` threads at a time.

    Files appear in `out_dir` (made if missing) complete or not at all, the manifest last; libraries that an earlier
    build of the same name left there go. The manifest notes `versions`, of what the network comes from, beside those of
    the packages and the linker used here. Raises ValueError for an unknown target or number of threads and for a folder
    that holds another network, RuntimeError when lowering or linking fails, OSError naming the
    folder or file that cannot be written.
    """
    abi.check_name(network.name)
    machine = find_target(target)
    _check_folder(Path(out_dir), network.name)
    program = assemble(network, machine.machine, threads, machine.element)
    code = Code.of(program)
    made, weights, ports = lower(code, target), code.header + program.weights, Ports.of(network)
    with _folder(Path(out_dir)) as folder, TemporaryDirectory(prefix=".lrw-", dir=folder) as name:
        drafts, note = _write(Path(name), program, ports, weights, machine, made, versions)
        _publish(drafts, folder, network.name)
    return Artifacts.load(folder / _manifest(network.name), note)


def networks_in(folder: Path) -> list[str]:
    """The names of the networks whose libraries are in `folder`."""
    before, after = _manifest("*").split("*")
    return sorted(path.name[len(before) : -len(after)] for path in folder.glob(_manifest("*")))


def network_files(folder: Path, name: str) -> list[Path]:
    """Those files of network `name` that lie in `folder`; its example's only where the network itself is there."""
    own = [_manifest(name), *_libraries(name), f"lrw_{name}.h", f"lrw_{name}.weights"]
    there = [folder / file for file in own if (folder / file).is_file()]
    beside = [folder / file for file in example.FILES if (folder / file).is_file()]
    return there + beside if there else []


def _libraries(name: str) -> tuple[str, ...]:
    return f"liblrw_{name}.so", f"liblrw_{name}.a", f"lrw_{name}.o"


def _manifest(name: str) -> str:
    return f"lrw_{name}.json"


def _check_folder(folder: Path, name: str) -> None:
    """Raise ValueError where `folder` holds another network, whose example and CMake file have the same names."""
    others = [other for other in networks_in(folder) if other != name]
    if others:
        raise ValueError(
            f"out: {folder} holds another network ({_manifest(others[0])}); accepted is another folder for {name!r}, "
            "or this one without that network's files"
        )


@contextmanager
def _folder(folder: Path) -> Iterator[Path]:
    """`folder`, made with its parents where missing; on an exception those that were made go again."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
    except BaseException as error:
        for path in made:
            with suppress(OSError):  # was never made, or holds what others put there
                path.rmdir()
        if isinstance(error, OSError) and error.filename is None:  # a full disk does not say which
            error.filename = str(folder)
        raise


def _write(
    folder: Path, program: Program, ports: Ports, weights: bytes, target: Target, code: bytes,
    versions: Mapping[str, str],
) -> tuple[list[Path], str]:  # fmt: skip
    """All files, and how the shared library was linked or why not."""
    name, elf = program.name, target.form == "elf"
    object_file, shared = folder / f"lrw_{name}.o", folder / f"liblrw_{name}.so"
    object_file.write_bytes(code)
    linked = link_shared(object_file, shared, name, target)
    static = folder / f"liblrw_{name}.a" if elf else object_file
    if elf:
        static.write_bytes(archive("network.o", code, abi.exported_symbols(name)))
        object_file.unlink()
    (folder / f"lrw_{name}.h").write_text(header_text(program, ports, target))
    (folder / f"lrw_{name}.weights").write_bytes(weights)
    for file, text in example.sources(name, ports, static.name).items():
        (folder / file).write_text(text)
    files = {"header": f"lrw_{name}.h", "weights": f"lrw_{name}.weights", "static": static.name, "example": "main.c"}
    if linked.library is not None:
        files["shared"] = shared.name
        versions = {**versions, "linker": linked.version}
    (folder / _manifest(name)).write_text(manifest_text(program, ports, weights, target, files, versions))
    return sorted(folder.iterdir()), linked.note


def _publish(drafts: list[Path], folder: Path, name: str) -> None:
    """Move drafts into `folder`. No manifest stands meanwhile: one that does describes what lies beside it.

    Libraries of earlier builds go first: of a form that was not made now they would be taken for this build's.
    """
    manifest = _manifest(name)
    for stale in (manifest, *_libraries(name)):
        (folder / stale).unlink(missing_ok=True)
    for draft in sorted(drafts, key=lambda path: path.name == manifest):
        os.replace(draft, folder / draft.name)
