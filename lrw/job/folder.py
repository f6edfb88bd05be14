"""What a job writes into its folder, and what an earlier run left there."""

from pathlib import Path

from lrw import files, nets
from lrw.job import state
from lrw_kernels.aot.build import network_files, networks_in

DENSE, PRUNED, COMPRESSED = "dense.safetensors", "pruned.safetensors", "compressed.safetensors"
REPORT, FIGURE = "report.json", "report.png"
EXPORT = "export"
OWN = "network"  # what the library of a network of one's own is called
LIBRARIES = (*nets.NAMES, OWN)


def written(out: Path) -> list[Path]:
    """Those files in folder `out` that a job writes, the checkpoint first."""
    own = [state.path_in(out), *(out / name for name in (REPORT, FIGURE, DENSE, PRUNED, COMPRESSED))]
    exported = [path for name in LIBRARIES for path in network_files(out / EXPORT, name)]
    return [path for path in dict.fromkeys([*own, *exported]) if path.exists() or path.is_symlink()]


def clear(out: Path) -> None:
    """Remove the files of an earlier run, never a folder, nor files that a job does not write.

    The checkpoint goes first: nothing goes on from half a folder. Raises OSError naming what cannot be removed.
    """
    for path in written(out):
        path.unlink()


def clear_partial(out: Path) -> None:
    """Remove what a run that was killed had begun to write."""
    for name in (state.path_in(out).name, REPORT, FIGURE, DENSE, PRUNED, COMPRESSED):
        for path in files.partial_files(out / name):
            path.unlink(missing_ok=True)


def check_unused(out: Path) -> None:
    """Raise ValueError where folder `out` holds files of a run; they are never mixed with another's."""
    left = written(out)
    if not left:
        return
    found = state.read(out)
    if found is None:
        raise ValueError(
            f"out: {out} holds {left[0].name} of an earlier run without its checkpoint, so that --resume cannot go on; "
            "--fresh removes that run's files and starts over"
        )
    if found.finished:
        raise ValueError(
            f"out: {out} holds a finished run; --resume reports on it again, --fresh removes its files and starts over"
        )
    raise ValueError(f"out: {out} holds an unfinished run; --resume goes on with it, --fresh starts over")


def check_replaceable(out: Path, weights: str | None) -> None:
    """Raise ValueError where the network that a run starts from is among the files that starting over removes."""
    if weights is not None and Path(weights).exists():
        for path in written(out):
            if path.exists() and path.samefile(weights):
                raise ValueError(
                    f"weights: {weights} is a file of the run that --fresh removes; accepted is a copy elsewhere, or "
                    "another folder as --out"
                )


def check_export(out: Path) -> None:
    """Raise ValueError where the folder of the library holds one that no job made, before anything is trained."""
    strange = [name for name in networks_in(out / EXPORT) if name not in LIBRARIES]
    if strange:
        raise ValueError(
            f"out: {out / EXPORT} holds the library of another network ({strange[0]}); accepted is another --out, or "
            "this one without that library"
        )
