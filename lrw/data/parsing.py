"""The wall around the parsers of others: whatever they raise on a file becomes one error that names it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LONGEST = 300  # an archive's list of names, quoted as a reason, has no end


@contextmanager
def parsing(path: Path, complaint: str) -> Iterator[None]:
    """`with parsing(path, "is not a readable NIfTI volume"):` around everything a parser does with the file at `path`.

    Raises:
        FileNotFoundError, PermissionError: as they are, where they name the file.
        ValueError: for any other exception, those for want of memory or stack included: `path`, the complaint and the
            reason, in one line.
    """
    try:
        yield
    except Exception as error:
        own = (path, str(path), str(path.absolute()))
        if isinstance(error, FileNotFoundError | PermissionError) and error.filename in own:
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        shown = reason if len(reason) <= _LONGEST else f"{reason[:_LONGEST]}..."
        raise ValueError(f"{path} {complaint}: {shown}") from error
