"""The whole page out of its parts: what is committed, and beside it, where something was just measured, this run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from bench import certificate, networks
from bench.cpu import inference, training
from bench.evidence.results import Results
from bench.evidence.tables import Tables
from bench.overview import history, page
from bench.overview.compare import Comparison
from bench.rows import AnyRow, read

RESULTS = Path(__file__).parents[1] / "results"
NETWORKS = {"Zen 4": "networks_zen4", "Xeon": "networks_xeon"}
LAYERS = {"AMD EPYC, family 26": "cpu", "Zen 4": "cpu_zen4"}
TRAINING = {"AMD EPYC, family 26": "cpu_training"}
NOW = "this run"


@dataclass(frozen=True)
class Fresh:
    """What was just measured: rows by the name of their part (PARTS of bench.quick), notes on what was not, and the
    networks of earlier runs on this machine by their commits, oldest first."""

    rows: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    notes: Sequence[str] = ()
    past: Sequence[tuple[str, Sequence[networks.Row]]] = ()


def sheet(fresh: Fresh, ref: str, changes: Sequence[tuple[str, Comparison]]) -> str:
    """The page as text; `changes` since the commit `ref`, each under a name, none where nothing is compared."""
    parts = [f'<p class="made">{escape(text)}</p>' for text in (certificate.commit(), *fresh.notes)]
    parts += page.networks_part(_beside(fresh, "networks", networks.Row, NETWORKS))
    if changes:
        parts += ["<h2>Changes</h2>", *(part for of, found in changes for part in page.comparison_part(of, ref, found))]
    parts += page.layers_part(_beside(fresh, "layers", inference.Row, LAYERS))
    parts += page.training_part(_beside(fresh, "training", training.Row, TRAINING))
    parts += page.pruned_part(fresh.rows.get("pruned", ()))
    parts += page.pruning_part(Results(Tables(RESULTS)))
    parts += page.startup_part(fresh.rows.get("start-up", ()))
    past = [part for of, versions in _past(fresh).items() for part in page.history_part(of, versions)]
    return page.page("lrw: what was measured", [*parts, *(["<h2>Over commits</h2>", *past] if past else [])])


def committed(kind: type[AnyRow], files: Mapping[str, str]) -> dict[str, list[AnyRow]]:
    """The committed rows of each machine; `files` has the names of theirs."""
    return {of: read(kind, RESULTS / f"{name}.csv") for of, name in files.items()}


def _beside(fresh: Fresh, part: str, kind: type[AnyRow], files: Mapping[str, str]) -> dict[str, Sequence[AnyRow]]:
    return {NOW: fresh.rows.get(part, ()), **committed(kind, files)}


def _past(fresh: Fresh) -> dict[str, list[tuple[str, Sequence[networks.Row]]]]:
    """Networks over commits: of this machine, this run last, and of those whose results are committed."""
    here = [*fresh.past, (NOW, fresh.rows.get("networks", ()))]
    return {"this machine": here} | {
        of: [(at.commit, history.rows(networks.Row, path, at.commit)) for at in history.versions(path)]
        for of, path in ((of, RESULTS / f"{name}.csv") for of, name in NETWORKS.items())
    }
