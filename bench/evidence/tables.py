"""Where a run is written down: a folder's files, and who reads them."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bench.evidence.outcomes import Outcomes
from bench.evidence.rows import Epoch, Row, Timing
from bench.rows import read


@dataclass(frozen=True)
class Tables:
    """The files of a run in a folder: rows, curves, outcomes and times."""

    folder: Path

    @property
    def rows_file(self) -> Path:
        return self.folder / "evidence.csv"

    @property
    def curves_file(self) -> Path:
        return self.folder / "evidence_curves.csv"

    @property
    def outcomes_file(self) -> Path:
        return self.folder / "evidence_outcomes.safetensors"

    @property
    def times_file(self) -> Path:
        return self.folder / "evidence_latency.csv"

    @cached_property
    def rows(self) -> list[Row]:
        return read(Row, self.rows_file)

    @cached_property
    def curves(self) -> list[Epoch]:
        return read(Epoch, self.curves_file)

    @cached_property
    def outcomes(self) -> Outcomes:
        return Outcomes(self.outcomes_file)

    @cached_property
    def times(self) -> list[Timing]:
        return read(Timing, self.times_file)
