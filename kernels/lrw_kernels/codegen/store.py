"""Objects on disk, in a folder that is this user's alone; where there is none, nothing is kept and a line says so once.

What lies there is native code, and runs as this user. It is trusted for whose it is: folder and file belong to the user
and nobody else may write to them, and every step of the way there (folders, symbolic links) belongs to the user or to
root, in folders nobody else may write to, unless they are sticky as /tmp is: then others can add, but neither rename
nor replace what is not theirs. Steps are checked from the root down, so what was checked can no longer be changed by
others, and no folder is made where it might be. The checksum is against damage: whoever can write a file can write that
as well.
"""

import errno
import hashlib
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

MOST_BYTES = 64 << 20  # of a file that is read at all; objects have thousands
_MOST_LINKS = 40  # on the way to the folder, as Linux has it
_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_DIGEST = 32  # bytes
_said = False


class Refused(PermissionError):
    """A folder or file that others have a hand in, or may have."""

    def __init__(self, why: str) -> None:
        super().__init__(errno.EPERM, why)


def read(name: str) -> bytes | None:
    """The bytes written under `name`; None where there are none, or where they are damaged or not this user's."""
    with _said_once():
        path = folder() / name
        try:
            with open(path, "rb", opener=_open_itself) as file:
                _check(path, os.fstat(file.fileno()), own=True)
                data = file.read(MOST_BYTES)
        except FileNotFoundError:
            return None
        content = data[_DIGEST:]
        return content if _digest(name, content) == data[:_DIGEST] else None
    return None


def write(name: str, data: bytes) -> Path | None:
    """Keep `data` under `name`, in one step, so that no other process sees half a file.

    Returns the folder it lies in; None where nothing can be kept.
    """
    with _said_once():
        kept = folder()
        with TemporaryDirectory(dir=kept, prefix="writing-") as drafts:
            draft = Path(drafts, name)
            with open(draft, "xb", opener=_open_private) as file:
                file.write(_digest(name, data) + data)
            os.replace(draft, kept / name)
        return kept
    return None


def lacks(name: str) -> bool:
    """Whether nothing lies under `name`, where something could be kept."""
    with _said_once():
        return not (folder() / name).exists()
    return False


def folder() -> Path:
    """Where objects are kept, made where it is missing.

    Raises Refused where that is not this user's alone, OSError where it cannot be made.
    """
    return private_folder(_chosen())


def _digest(name: str, data: bytes) -> bytes:
    """The checksum of `data` under `name`, which is part of it: a file under another's name is damage too."""
    return hashlib.sha256(name.encode() + b"\0" + data).digest()


def say(line: str) -> None:
    """One line to the user; a windowed application has nowhere to write it."""
    if sys.stderr is not None:
        sys.stderr.write(f"lrw: {line}\n")


def say_once(why: str) -> None:
    """Say that nothing is kept, the first time in a process."""
    global _said
    if not _said:
        say(f"kernels are not kept, {why}")
    _said = True


@contextmanager
def _said_once() -> Iterator[None]:
    """A block that ends, and says why once, where a file cannot be used: Refused or OSError."""
    try:
        yield
    except Refused as error:
        say_once(f"{error.strerror}; accepted in LRW_CACHE_DIR is a folder only this user may write to (chmod go-w)")
    except OSError as error:
        say_once(f"{error.filename or _chosen()} cannot be written or read: {error.strerror}")


def _chosen() -> Path:
    """The folder to keep objects in: LRW_CACHE_DIR, or lrw in the user's cache folder; XDG_CACHE_HOME counts where it
    is absolute."""
    chosen, caches = os.environ.get("LRW_CACHE_DIR"), os.environ.get("XDG_CACHE_HOME", "")
    try:
        if chosen:
            return Path(chosen).expanduser()
        if os.path.isabs(caches):
            return Path(caches, "lrw")
        if os.environ.get("HOME") == "":
            raise RuntimeError
        return Path.home() / ".cache" / "lrw"
    except RuntimeError:
        raise Refused("this user has no home") from None


def private_folder(chosen: Path) -> Path:
    """The folder's real path, made where it is missing.

    Raises Refused where it is not this user's alone, OSError where it cannot be made.
    """
    if not hasattr(os, "geteuid"):
        raise Refused("this system does not say whose a file is")
    chosen = chosen.absolute()
    here, ahead, links = Path(chosen.anchor), list(reversed(chosen.parts[1:])), 0
    _check(here, os.lstat(here))
    while ahead:
        step = here / ahead.pop()
        if step.name == "..":
            here = here.parent  # which was checked on the way down
            continue
        found = _made(step)
        _check(step, found)
        if stat.S_ISLNK(found.st_mode):
            target, links = Path(os.readlink(step)), links + 1
            if links > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(chosen))
            here = Path(target.anchor) if target.is_absolute() else here
            ahead += reversed(target.parts[1:] if target.is_absolute() else target.parts)
        elif stat.S_ISDIR(found.st_mode):
            here = step
        else:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(step))
    _check(here, os.lstat(here), own=True)
    return here


def _made(path: Path) -> os.stat_result:
    try:
        return os.lstat(path)
    except FileNotFoundError:
        with suppress(FileExistsError):  # another process was faster
            os.mkdir(path, 0o700)
        return os.lstat(path)


def _check(path: Path, found: os.stat_result, *, own: bool = False) -> None:
    """Raise Refused unless it belongs to this user (or on the way there to root) and others may not change it."""
    user, mode = os.geteuid(), stat.S_IMODE(found.st_mode)
    if found.st_uid != user and (own or found.st_uid != 0):
        raise Refused(f"{path} belongs to user {found.st_uid}, this is user {user}")
    shared = bool(mode & _OTHERS) and not stat.S_ISLNK(found.st_mode)  # links have no mode of their own
    if shared and (own or not mode & stat.S_ISVTX):
        raise Refused(f"others may write to {path} (mode {mode:04o})")


def _open_itself(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)  # no link to another file, no waiting for a pipe


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
