"""One clip as frames: spread by the time they are shown, upright as they are shown."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from lrw.data.limits import MOST_VOXELS
from lrw.data.optional import require
from lrw.data.parsing import parsing


def read_clip(path: Path, size: tuple[int, int, int]) -> np.ndarray:
    """D frames of the clip at `path`, uint8 `[D, H, W, 3]`: those shown in the middle of D equal parts of its time.

    They are turned and mirrored as the file's display matrix says, scaled to cover H, W and cropped around the centre.

    Raises:
        ImportError: PyAV is not installed.
        ValueError: the clip does not decode, has frames of more than MOST_VOXELS values (`lrw.data.limits`) as stored
            or as scaled, or is to be turned by other than quarter turns. The message names the file.
    """
    av = require("av", "PyAV")
    with parsing(path, "does not decode as a video"):
        # The first pass reads the times of the packets and decodes nothing.
        with _opened(av, path) as (container, stream):
            packets = (packet for packet in container.demux(stream) if packet.size and not packet.is_discard)
            told = [(_time(packet), packet.duration or 0) for packet in packets]
        with _opened(av, path) as (container, stream):
            packets_timed = [(time, length) for time, length in told if time is not None]
            if len(packets_timed) < max(1, len(told)):  # nothing tells when frames are shown: all are as long
                return _sample(enumerate(container.decode(stream)), (0, len(told)), size)
            frames_timed = ((_time(frame), frame) for frame in container.decode(stream))
            return _sample(frames_timed, _span(packets_timed), size)


@contextmanager
def _opened(av: ModuleType, path: Path) -> Iterator[tuple[Any, Any]]:
    """The file and its first video stream. A list of other files' addresses is not followed to a network."""
    # Titles and the like are not used, so that those which are no UTF-8 do no harm; absolute, no name is an address.
    with av.open(str(path.absolute()), metadata_errors="ignore", options={"protocol_whitelist": "file"}) as container:
        if not container.streams.video:
            raise ValueError("it holds no video stream")
        stream = container.streams.video[0]
        _check_values(stream.codec_context.height, stream.codec_context.width)
        # FFmpeg's own limit holds for frames that grow in the middle of a clip.
        stream.codec_context.options = {"max_pixels": str(MOST_VOXELS // 3)}
        stream.thread_type = "AUTO"
        yield container, stream


def _check_values(height: int, width: int) -> None:
    if 3 * height * width > MOST_VOXELS:
        raise ValueError(f"frames of {height} x {width} x 3 values; accepted are at most {MOST_VOXELS}")


def _time(shown: Any) -> int | None:
    """When a packet or frame is shown, in the stream's units; AVI may tell only when it is decoded."""
    time: int | None = shown.dts if shown.pts is None else shown.pts
    return time


def _span(told: list[tuple[int, int]]) -> tuple[int, int]:
    """When the first frame appears and the last one goes, from when each is shown and for how long.

    Zero stands for a length that is not told: it is the mean.
    """
    times = [time for time, _ in told]
    start, last = min(times), max(times)
    mean = max(1, (last - start) // max(1, len(told) - 1))
    return start, max(time + (length or mean) for time, length in told)


def _sample(timed: Iterator[tuple[int | None, Any]], span: tuple[int, int], size: tuple[int, int, int]) -> np.ndarray:
    """Of frames in the order they are shown, those in the middle of D equal parts of the span."""
    start, end = span
    depth = size[0]
    taken: list[np.ndarray] = []
    shown: Any = None
    for time, frame in timed:
        # The middle of part p lies (2 p + 1) (end - start) / 2 D after the start: whole numbers compare exactly.
        begins = 2 * depth * ((start if time is None else time) - start)
        due = sum((2 * part + 1) * (end - start) < begins for part in range(len(taken), depth))
        if shown is not None and due:
            taken += [_upright(shown, size[1:])] * due
        shown = frame
    if shown is None:
        raise ValueError("it holds no frame")
    if len(taken) < depth:
        taken += [_upright(shown, size[1:])] * (depth - len(taken))
    return np.stack(taken)


def _upright(frame: Any, size: tuple[int, int]) -> np.ndarray:
    """The frame as it is shown, uint8 `[H, W, 3]`."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    # (x, y) of the stored frame is shown at (a x + c y, b x + d y).
    a, b, _, c, d = (1, 0, 0, 0, 1) if matrix is None else np.frombuffer(matrix, np.int32)[:5].tolist()
    if b == c == 0 and a and d:
        return _covering(frame, size)[:: np.sign(d), :: np.sign(a)]
    if a == d == 0 and b and c:
        return _covering(frame, size[::-1]).transpose(1, 0, 2)[:: np.sign(b), :: np.sign(c)]
    raise ValueError(f"it is to be shown turned by {[[a, b], [c, d]]}; accepted are quarter turns and mirrors")


def _covering(frame: Any, size: tuple[int, int]) -> np.ndarray:
    """Scale a stored frame to cover (H, W) in proportion, crop around the centre: uint8 `[H, W, 3]`."""
    height, width = size
    scale = max(height / frame.height, width / frame.width)
    rows, columns = max(height, round(frame.height * scale)), max(width, round(frame.width * scale))
    _check_values(rows, columns)
    # AREA averages where the frame shrinks; the default would alias.
    scaled = frame.reformat(width=columns, height=rows, format="rgb24", interpolation="AREA").to_ndarray()
    top, left = (rows - height) // 2, (columns - width) // 2
    cropped: np.ndarray = scaled[top : top + height, left : left + width]
    return cropped
