"""Files that are written whole or not at all, with the mode that the umask gives, whichever library writes them."""

import errno
import glob
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex

PARTIAL = ".{name}.{mark}.partial"


@contextmanager
def whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A new file beside `path` to write into: it takes that place once the block is done, and goes where it raises.

    What lay at `path` stays until then. Raises OSError with the name of `path` where something cannot be written, be
    it torch or safetensors that said so in words of its own; what else the block raises comes through.
    """
    target = Path(path)
    if not target.name:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    partial = target.with_name(PARTIAL.format(name=target.name, mark=token_hex(4)))
    try:
        mode = _create(partial)
        yield partial
        if partial.stat().st_mode & 0o777 != mode:  # safetensors puts a file of its own there, which only we may read
            partial.chmod(mode)
        with partial.open("r+b") as file:
            os.fsync(file.fileno())
        os.replace(partial, target)
    except Exception as error:
        number = _number(error)
        if number is None:
            raise
        raise OSError(number, os.strerror(number), str(target)) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def partial_files(path: Path) -> list[Path]:
    """What processes that were killed while they wrote `path` left beside it."""
    return sorted(path.parent.glob(PARTIAL.format(name=glob.escape(path.name), mark="*")))


def _create(path: Path) -> int:
    """An empty file that was not there; returns the mode that the umask left it."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
        return os.fstat(file.fileno()).st_mode & 0o777


def _number(error: BaseException) -> int | None:
    """The system's number for why a file was not written, None where that is not what went wrong."""
    if isinstance(error, OSError):
        return error.errno
    said = re.search(r"\(os error (\d+)\)", str(error))  # safetensors
    if said is not None:
        return int(said.group(1))
    cause = error.__cause__ or error.__context__
    return _number(cause) if isinstance(error, RuntimeError) and cause is not None else None  # torch
