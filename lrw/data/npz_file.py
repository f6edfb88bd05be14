"""NumPy archives, read without running code and without believing the sizes they claim."""

import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from lrw.data.limits import MOST_BYTES, MOST_CLASSES, MOST_DEFLATED
from lrw.data.parsing import parsing

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def read_arrays(path: Path, wanted: Sequence[str], kind: str) -> dict[str, np.ndarray]:
    """The `wanted` arrays of the `.npz` at `path`, of MOST_BYTES at most together.

    Raises:
        ValueError: it is not `kind`: no archive, encrypted, packed by other methods than NumPy's, damaged, without one
            of the arrays; or an array of Python objects, of another size than it claims, or too large. The message
            names the file.
    """
    with parsing(path, f"is not {kind}"), zipfile.ZipFile(path) as archive:
        found = _names(archive)
        missing = [key for key in wanted if key not in found]
        if missing:
            raise ValueError(f"{', '.join(missing)} missing, found {', '.join(found)}")
        members = [archive.getinfo(f"{key}.npy") for key in wanted]
        claimed = sum(member.file_size for member in members)
        most = min(MOST_BYTES, MOST_DEFLATED * path.stat().st_size)
        if claimed > most:
            raise ValueError(f"its arrays claim {claimed} bytes; accepted are at most {most} in a file of its size")
        return {key: _read(archive, member, key) for key, member in zip(wanted, members, strict=True)}


def names(path: Path) -> list[str]:
    """The names of the arrays in the `.npz` at `path`.

    Raises:
        ValueError: it is no archive, or has two arrays of one name.
    """
    with parsing(path, "is not an .npz archive"), zipfile.ZipFile(path) as archive:
        return _names(archive)


def read_array(path: Path) -> np.ndarray:
    """The array in the `.npy` file at `path`, of MOST_BYTES at most.

    Raises:
        FileNotFoundError: nothing at that path.
        ValueError: it is no array of numbers with samples along its first axis, claims another size than it has, or is
            too large. The message names the file.
    """
    size = path.stat().st_size
    with parsing(path, "is not an .npy array"), path.open("rb") as file:
        if size > MOST_BYTES:
            raise ValueError(f"it has {size} bytes; accepted are at most {MOST_BYTES}")
        _check_header(file, size, "the array")
        file.seek(0)
        array: np.ndarray = npy.read_array(file, allow_pickle=False)
        if array.dtype.kind not in "fiub" or array.ndim < 1 or array.size == 0:
            raise ValueError(f"it holds {array.dtype} {list(array.shape)}; accepted are numbers, samples first")
        return array


def as_numbers(array: np.ndarray) -> Tensor:
    """The real numbers of `array`, float32; those beyond its range become infinite."""
    with np.errstate(over="ignore"):
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def as_labels(labels: np.ndarray, what: str, path: Path) -> Tensor:
    """The integers `labels` as int64, of the same shape.

    Raises:
        ValueError: one below 0 or from MOST_CLASSES on; the message names the file and `what` they are.
    """
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest >= MOST_CLASSES:
        raise ValueError(f"{path}: {what} go from {lowest} to {highest}; accepted are 0 to {MOST_CLASSES - 1}")
    return torch.from_numpy(labels.astype(np.int64))


def _names(archive: zipfile.ZipFile) -> list[str]:
    found = [name.removesuffix(".npy") for name in archive.namelist()]
    if len(set(found)) < len(found):
        raise ValueError("it holds two arrays of one name")
    return found


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo, key: str) -> np.ndarray:
    if member.compress_type not in _METHODS:
        raise ValueError(f"{key} is packed by method {member.compress_type}; accepted are stored and deflated members")
    with archive.open(member) as file:
        _check_header(file, member.file_size, key)
        file.seek(0)
        array: np.ndarray = npy.read_array(file, allow_pickle=False)
        return array


def _check_header(file: IO[bytes], size: int, key: str) -> None:
    """The shape and dtype that are claimed must fill the member exactly."""
    version = npy.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"{key} is written in .npy version {version}; accepted are {', '.join(map(str, _HEADERS))}")
    shape, _, dtype = _HEADERS[version](file)
    if dtype.hasobject:
        raise ValueError(f"{key} holds Python objects, which are never read (allow_pickle=False)")
    claimed = math.prod(shape) * dtype.itemsize
    if claimed != size - file.tell():
        raise ValueError(f"{key} claims {claimed} bytes for {dtype} {list(shape)}, it holds {size - file.tell()}")
