"""Tensors by name from files of others: safetensors, and what torch.save wrote, read without running code.

Nothing is allocated that the file has not: its own list of contents is compared with its size before a parser sees it.
"""

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from pickle import UnpicklingError
from threading import RLock
from typing import Any, TypeGuard
from zipfile import ZIP_STORED, BadZipFile, ZipFile, is_zipfile

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from lrw import checks
from lrw_kernels.untrusted import MOST_CHARACTERS, in_a_line, parse_json, shown

Path_ = str | os.PathLike[str]
# What reading a damaged or foreign file with torch's restricted unpickler or safetensors may raise.
UNREADABLE = (
    SafetensorError, UnpicklingError, BadZipFile, struct.error, RuntimeError, EOFError, LookupError, AttributeError,
    TypeError, ValueError, ArithmeticError, AssertionError, MemoryError,
)  # fmt: skip
TORCH_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin")
INNER = ("state_dict", "model_state_dict", "network_weights", "model", "net", "network", "ema")
_NUMBERS = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")
_SAFE = RLock()  # what may be read is the whole process's
_PICKLE = b"\x80"
_SAFE_START = b"{"  # after eight bytes of length
_ADVICE = "accepted are tensors by name, such as torch.save(net.state_dict(), ...) writes"
_DAMAGED = "it is empty, cut off, damaged or no file of"


def read_state_dict(path: Path_) -> dict[str, Tensor]:
    """The tensors of a plain network's file: any safetensors, or what torch.save wrote (read without running code),
    told apart by content, whatever the file is called.

    Of a trainer's checkpoint, which may hold numbers and tensors besides, it is what stands under one of INNER.
    Raises FileNotFoundError where there is none, OSError where it cannot be read, ValueError for a file that is damaged
    or holds no tensors by name.
    """
    check_file(path)
    found = _safe(path) if _looks_safe(path) else _unpickled(path)
    tensors = next((t for t in (found, *_inner(found)) if _is_state_dict(t)), None)
    if tensors is None:
        names = list(found)[:5] if isinstance(found, dict) else []
        holds = ", ".join(map(shown, names)) if names else f"a {type(found).__name__}"
        raise ValueError(f"path: {path} holds no state dict, but {holds}; {_ADVICE}")
    plain = {plain_name(name): tensor for name, tensor in tensors.items()}
    wrapped = plain and all(name.startswith("module.") for name in plain)  # saved from inside DistributedDataParallel
    return {name.removeprefix("module.") if wrapped else name: tensor for name, tensor in plain.items()}


def read_safetensors(path: Path_) -> tuple[dict[str, str], dict[str, Tensor]]:
    """(metadata, tensors) of a safetensors file; the tensors lie in the file until they are copied.

    Raises one of UNREADABLE, or OSError. That offsets leave no hole, overlap nowhere and end with the file is
    safetensors' own check; that no key repeats is not.
    """
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        parse_json(file.read(min(length, MOST_CHARACTERS + 1)).decode(), "header")
    with safe_open(path, framework="pt") as opened:
        return opened.metadata() or {}, {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118


def check_file(path: Path_) -> None:
    """Raises FileNotFoundError where no file is, OSError where one cannot be read."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"path: no file {path}")
    open(path, "rb").close()  # says which file, and why


def check_types(net: nn.Module, tensors: dict[str, Tensor], refusal: str) -> None:
    """Raises ValueError, starting with `refusal`, where one of `tensors` is of a type that torch would convert to that
    of the network's tensor without a word: floating numbers stand for each other, all else is what it is."""
    for name, own in net.state_dict().items():
        tensor = tensors.get(name)
        if tensor is None or not isinstance(own, Tensor):
            continue
        accepted = checks.DTYPES if own.dtype in checks.DTYPES else (own.dtype,)
        if tensor.dtype not in accepted:
            names = ", ".join(str(dtype).removeprefix("torch.") for dtype in accepted)
            raise ValueError(f"{refusal}; tensor {shown(name)}: dtype {tensor.dtype}; accepted are {names}")
        if tensor.dtype == torch.bool and bool((tensor.contiguous().view(torch.uint8) > 1).any()):
            raise ValueError(f"{refusal}; tensor {shown(name)}: bytes other than 0 and 1; accepted is bool")


def plain_name(name: str) -> str:
    """A tensor's name without what torch.compile puts in front of compiled submodules."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def _looks_safe(path: Path_) -> bool:
    """Whether a file begins as safetensors do, or cannot be told and is called one."""
    with open(path, "rb") as file:
        start = file.read(9)
    if start[8:] == _SAFE_START:  # what no archive and no pickle has there
        return True
    return not is_zipfile(path) and start[:1] != _PICKLE and Path(path).suffix not in TORCH_SUFFIXES


def _unpickled(path: Path_) -> object:
    """What a file of `torch.save` holds: tensors, numbers, texts, lists and dictionaries. Raises ValueError."""
    try:
        file: Any = path
        if is_zipfile(path):
            _check_archive(path)
        else:  # of torch before 1.6: from a file so much as a text is said to be long would be made room for
            file = BytesIO(Path(path).read_bytes())
        with _SAFE, _numbers_allowed():
            return torch.load(file, map_location="cpu", weights_only=True)
    except (*UNREADABLE, OSError) as error:
        objects = isinstance(error, UnpicklingError) and (is_zipfile(path) or "GLOBAL" in str(error))
        what = f", but a whole model (or other objects); {_ADVICE}" if objects else f": {_DAMAGED} torch.save"
        raise ValueError(f"path: {path} holds no state dict{what}") from error


@contextmanager
def _numbers_allowed() -> Iterator[None]:
    """NumPy's numbers, which trainers' checkpoints hold besides tensors, may be read: eight bytes each at most.

    What somebody else allowed stays allowed.
    """
    others = {getattr(known, "__name__", "") for known in torch.serialization.get_safe_globals()}
    ours: list[Any] = [] if {"dtype", "scalar"} & others else [
        (_NumberType, "numpy.dtype"), (_number, "numpy.core.multiarray.scalar"),
        (_number, "numpy._core.multiarray.scalar"),
    ]  # fmt: skip
    with torch.serialization.safe_globals(ours):
        yield


class _NumberType:
    """In the place of numpy.dtype: the name of a type of numbers of up to eight bytes."""

    def __init__(self, said: object, *_: object) -> None:
        if said not in _NUMBERS:
            raise ValueError(f"a number of type {shown(said)}")
        self.name = str(said)

    def __setstate__(self, state: object) -> None:
        """What numpy.dtype writes besides: byte order, sizes."""


def _number(kind: _NumberType, data: bytes = b"") -> float:
    """In the place of numpy's scalar."""
    found = np.dtype(kind.name)
    if not isinstance(data, bytes) or len(data) != found.itemsize:
        raise ValueError("a number of another size")
    return float(np.frombuffer(data, found)[0])


def _check_archive(path: Path_) -> None:
    """Raises BadZipFile for members that torch.save would not write: compressed ones, which grow to any size when read,
    others that together are larger than the file, and those without their checksum."""
    with ZipFile(path) as archive:
        members = archive.infolist()
        if any(m.compress_type != ZIP_STORED for m in members):
            raise BadZipFile("compressed")
        if sum(m.file_size for m in members) > os.path.getsize(path):
            raise BadZipFile("larger than the file")
        if any(m.CRC for m in members) and archive.testzip() is not None:  # torch can be told to write none
            raise BadZipFile("damaged")


def _safe(path: Path_) -> dict[str, Tensor]:
    try:
        return read_safetensors(path)[1]
    except (*UNREADABLE, OSError) as error:
        raise ValueError(f"path: {path} holds no state dict: {_DAMAGED} safetensors ({in_a_line(error)})") from error


def _inner(found: object) -> list[object]:
    """What stands in a checkpoint under the names that trainers give the network's state dict."""
    return [found.get(key) for key in INNER] if isinstance(found, dict) else []


def _is_state_dict(found: object) -> TypeGuard[dict[str, Tensor]]:
    if not isinstance(found, dict):
        return False
    return all(isinstance(name, str) and _is_plain(tensor) for name, tensor in found.items())


def _is_plain(value: object) -> bool:
    """Whether it is a tensor whose numbers are there, one by one."""
    return isinstance(value, Tensor) and value.layout == torch.strided and value.is_cpu and not value.is_quantized
