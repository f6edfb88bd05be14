"""A chart of milliseconds: horizontal bars, the longest first, a colour for each kind."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lrw import files

MOST_BARS = 25
FORMATS = (".png", ".pdf", ".svg")
_COLOURS = ("#1f6f8b", "#b5651d")
_REST = "#999999"


class Bar(NamedTuple):
    """What took `ms` milliseconds, what is said of it, and its kind."""

    name: str
    ms: float
    text: str
    kind: str


def draw(path: Path, title: str, bars: Sequence[Bar]) -> Path:
    """Write the chart to `path`, whole or not at all; bars beyond MOST_BARS are one, their sum.

    Raises what `check` does, and OSError naming the file where it cannot be written.
    """
    check(path)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    colours = dict(zip(dict.fromkeys(bar.kind for bar in bars), _COLOURS, strict=False))
    shown = shortened(bars)
    figure = Figure(figsize=(10, 1.3 + 0.24 * len(shown)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=10, parse_math=False)
    _draw_bars(figure.subplots(), shown, colours)
    with files.whole(path) as partial:
        figure.savefig(partial, dpi=120, format=path.suffix[1:])
    return path


def check(path: Path) -> None:
    """Raises ValueError for a file of another format than FORMATS, ImportError where matplotlib is not installed."""
    if path.suffix not in FORMATS:
        raise ValueError(f"path: {str(path)!r}; accepted are files of {', '.join(FORMATS)}")
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise ImportError("the figure needs matplotlib, which is not installed: pip install 'lrw[plot]'") from error


def shortened(bars: Sequence[Bar]) -> list[Bar]:
    """The longest first; those beyond MOST_BARS as the last, without a kind."""
    ordered = sorted(bars, key=lambda bar: -bar.ms)
    if len(ordered) <= MOST_BARS:
        return ordered
    rest = ordered[MOST_BARS - 1 :]
    return [*ordered[: MOST_BARS - 1], Bar(f"{len(rest)} others", sum(bar.ms for bar in rest), "", "")]


def _draw_bars(ax: Any, bars: Sequence[Bar], colours: Mapping[str, str]) -> None:
    from matplotlib.patches import Patch

    drawn = ax.barh(range(len(bars)), [bar.ms for bar in bars], color=[colours.get(bar.kind, _REST) for bar in bars])
    texts = [f"{bar.ms:.3g} ms  {bar.text}".rstrip() for bar in bars]
    ax.bar_label(drawn, labels=texts, padding=3, fontsize=7, parse_math=False)
    ax.set_yticks(range(len(bars)), [bar.name for bar in bars], fontsize=7, parse_math=False)
    ax.invert_yaxis()
    ax.set_xmargin(0.4)
    ax.set_xlabel("ms")
    ax.legend(
        handles=[Patch(color=colour, label=kind) for kind, colour in colours.items()], fontsize=8, loc="lower right"
    )
