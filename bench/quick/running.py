"""Go through the parts while there is time, and say where it is."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Event, Thread
from types import TracebackType
from typing import Any, Self

import torch

from bench.quick.parts import Part
from bench.rows import stamped

EVERY = 20.0  # seconds after which what goes on is said again


class Progress:
    """Lines on the standard output with the seconds since the start, one every EVERY seconds at least; a context
    manager."""

    def __init__(self, every: float = EVERY) -> None:
        self._every, self._begin = every, time.monotonic()
        self._last, self._text, self._end = self._begin, "", Event()
        self._thread = Thread(target=self._repeat, daemon=True)

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._begin

    def say(self, text: str) -> None:
        """What goes on from now."""
        self._text, self._last = text, time.monotonic()
        print(f"{self.seconds:4.0f} s  {text}", flush=True)

    def _repeat(self) -> None:
        while not self._end.wait(max(0.0, self._last + self._every - time.monotonic())):
            if time.monotonic() - self._last >= self._every:
                self.say(self._text)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()


@dataclass(frozen=True)
class Done:
    """A part's rows, with their certificates, and notes on what it has none of."""

    part: Part
    rows: list[Any] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def go(
    parts: Sequence[Part], stamps: Mapping[str, dict[str, str]], progress: Progress, seconds: float
) -> Iterator[Done]:
    """Each part once it is done, its rows with the stamp of its name, all in about so many `seconds`: of those left it
    has its share, and a case that would end beyond, if it took as long as the one before, is left out and noted.
    Raises gate.Red as soon as a gate is red."""
    end = progress.seconds + seconds
    for at, part in enumerate(parts):
        begin, took, late = progress.seconds, 0.0, list[str]()
        due = begin + (end - begin) * part.seconds / sum(each.seconds for each in parts[at:])
        done = Done(part, notes=part.notes())
        torch.manual_seed(0)
        for name, measure in part.cases():
            begin = progress.seconds
            if begin + took > due:
                late.append(name)
                continue
            progress.say(f"{part.name}: {name}")
            done.rows.extend(stamped(row, stamps[part.name]) for row in measure())
            took = progress.seconds - begin
        if late:
            done.notes.append(f"not measured, time was up: {part.name} {', '.join(late)}")
        yield done
