"""NumPy archives, read without running code."""

import zipfile
import zlib
from collections.abc import Sequence
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


class opened:
    """`with opened(path) as archive:` the archive, and the file closed whatever it turns out to be."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")  # here: np.load, given a path, leaves it open when the archive is broken

    def __enter__(self) -> np.lib.npyio.NpzFile:
        try:
            archive = np.load(self._file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it holds a single array")
        except BaseException:
            self._file.close()
            raise
        return archive

    def __exit__(self, *_: object) -> None:
        self._file.close()
