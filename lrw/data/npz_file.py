"""NumPy archives, read without running code."""

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np


def read_arrays(path: Path, wanted: Sequence[str], kind: str) -> dict[str, np.ndarray]:
    """The `wanted` arrays of the `.npz` at `path`. Raises ValueError, saying that it is not `kind`, without them."""
    try:
        with opened(path) as archive:
            missing = [key for key in wanted if key not in archive.files]
            if missing:
                raise ValueError(f"{', '.join(missing)} missing, found {', '.join(archive.files)}")
            return {key: archive[key] for key in wanted}
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is not {kind}: {error}") from error


def names(path: Path) -> list[str]:
    """The names of the arrays in the `.npz` at `path`; none where it is something else."""
    try:
        with opened(path) as archive:
            return list(archive.files)
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error):
        return []


@contextmanager
def opened(path: Path) -> Iterator[np.lib.npyio.NpzFile]:
    """`with opened(path) as archive:` the archive, and the file closed whatever it turns out to be."""
    with path.open("rb") as file:  # here: np.load, given a path, leaves it open when the archive is broken
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("it holds a single array")
        yield archive
