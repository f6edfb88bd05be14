"""What a person sees while something long runs: bars on a terminal, one line per epoch elsewhere, always on stderr."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

EVERY = 30.0  # seconds after which there is a line where nothing can be drawn


class Reporter:
    """Lines and bars on `console`; quiet shows neither."""

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self.console, self.quiet = console, quiet

    def say(self, text: str) -> None:
        """One line."""
        if not self.quiet:
            self.console.print(text, highlight=False, soft_wrap=True)

    @contextmanager
    def status(self, text: str) -> Iterator[None]:
        """Something whose length is not known; nothing unless on a terminal."""
        if self.quiet or not self.console.is_terminal:
            yield
            return
        with self.console.status(text):
            yield

    @contextmanager
    def bar(self, text: str, total: int) -> Iterator[Callable[[int], None]]:
        """A bar of `total` steps; the caller reports how many are done. Elsewhere than on a terminal lines, EVERY
        so often."""
        if self.quiet:
            yield lambda done: None
            return
        if not self.console.is_terminal:
            yield self._lines(text, total)
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(text, total=total)
            yield lambda done: progress.update(task, completed=done)

    def _lines(self, text: str, total: int) -> Callable[[int], None]:
        """What says how many of `total` are done, EVERY so often."""
        last = monotonic()

        def update(done: int) -> None:
            nonlocal last
            if monotonic() - last >= EVERY:
                last = monotonic()
                self.say(f"{text}: {done} of {total}")

        return update


def on_stderr(*, quiet: bool = False) -> Reporter:
    """One that writes on stderr, or nowhere."""
    return Reporter(Console(stderr=True), quiet=quiet)
