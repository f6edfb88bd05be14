"""The page out of results: tables, figures and claims, nothing typed in by hand.

`bench.report` makes docs/evidence.md, and the tables of docs/pruning.md and README.md, out of those committed.
"""

from pathlib import Path

from bench import page
from bench.evidence import figures
from bench.evidence.chain import DENSE
from bench.evidence.claims import claims
from bench.evidence.latency import WIDE
from bench.evidence.methods import METHODS
from bench.evidence.results import Results
from bench.evidence.rows import Row
from bench.evidence.settings import EIGHT_BITS, FULL, SEEDS, SMALL, UNTRAINED
from bench.evidence.tables import Tables
from bench.rows import stamps

NOTHING = "Nothing was measured yet: `nox -s evidence` does that."
ABOUT = {
    "digits": "moving digits, 40 classes, C3D (embedded data: anyone can repeat it); each seed has other clips",
    "adrenal": "AdrenalMNIST3D at 28^3, all its volumes, C3D",
    "hippocampus": "Medical Segmentation Decathlon, task 4, all 260 volumes, 3D U-Net",
}


def write(tables: Tables, folder: Path) -> Path:
    """Write evidence.md and its figures into `folder`; returns it."""
    if tables.rows and Results(tables).times:
        figures.draw(Results(tables), folder / "figures" / "evidence.png")
    if tables.curves:
        figures.draw_curves(
            [e for e in tables.curves if e.setting == Results(tables).setting.name],
            folder / "figures" / "evidence_dense.png",
        )
    written = folder / "evidence.md"
    written.write_text(text(tables))
    return written


def text(tables: Tables) -> str:
    """The page."""
    if not tables.rows:
        return f"# Evidence\n\n{NOTHING}\n"
    results = Results(tables)
    parts = [_head(results), _claims(results), *(_task(results, task) for task in results.tasks), _methods(results)]
    return "\n\n".join([*parts, _certificate(tables.rows)]) + "\n"


def claims_table(tables: Tables) -> list[str]:
    """The claims and their answers, for the front page."""
    if not tables.rows:
        return [NOTHING]
    lines = [(claim.text, claim.answer) for claim in claims(Results(tables))]
    return page.tight(page.table(("claim", ""), lines))


def lost_table(tables: Tables) -> list[str]:
    """What is lost with and without training, task beside task."""
    if not tables.rows:
        return [NOTHING]
    results = Results(tables)
    head = ["network", "gone"]
    for task in results.tasks:
        head += [f"{task}: multiplies", f"{results.of(task, DENSE)[0].metric}", "lost (95 %)"]
    keys = [(m, r) for m in METHODS for r in dict.fromkeys(r for t in results.tasks for r in results.rates(t, m)) if r]
    lines = [["dense", "", *(cell for task in results.tasks for cell in ("1", _score(results, task, DENSE, 0.0), ""))]]
    for method, removed in keys:
        cells = (cell for task in results.tasks for cell in _lost(results, task, method, removed))
        lines.append([method, _share(removed), *cells])
    return page.tight(page.table(head, lines))


def short_table(tables: Tables) -> list[str]:
    """What is asked first: the dense network, after cuts, fitted, trained."""
    if not tables.rows:
        return [NOTHING]
    results = Results(tables)
    head = ["", *(words for task in results.tasks for words in (f"{task}: cut alone", "`lrw.prune`", "then trained"))]
    dense = (f"{_score(results, t, DENSE, 0.0, 3)} {results.of(t, DENSE)[0].metric}" for t in results.tasks)
    lines = [["dense", *(cell for one in dense for cell in (one, "", ""))]]
    for suffix, tile in (("", "F(2,3)"), ("_f4", "F(4,3)")):
        for removed in (r for r in results.rates(results.tasks[0], f"fitted{suffix}") if r):
            cells = []
            for task in results.tasks:
                names = (f"cut{suffix}", f"fitted{suffix}", f"low_rank{suffix}")
                cells += [_score(results, task, name, removed, 3) for name in names]
            lines.append([f"{tile}, {_share(removed)} of the columns gone", *cells])
    return page.tight(page.table(head, lines))


def _head(results: Results) -> str:
    small, full = SMALL.width, FULL.width
    setting = results.setting
    figure = "![the metric against milliseconds](figures/evidence.png)\n\n" if results.times else ""
    return f"""# Evidence

{figure}Made by `nox -s evidence` (setting "{setting.name}", networks of width {setting.width}, {SEEDS} seeds) out of
the files `evidence*` in bench/results; this page and its figures are written by `bench/evidence/page.py`.
`nox -s evidence -- --setting full --device cuda` trains networks {full // small} times as wide, at full resolution,
several times as long.

Scores are those of the trained networks; milliseconds are those of networks of the papers' width with their patterns
and random weights, since the trained ones are too narrow for products to be what takes time (both are in the tables).
Accelerated networks take turns with the dense one in torch, in OpenVINO and in OpenVINO's 8 bits (NNCF, calibrated on
the samples that pruning sees), at batch 1.

Every method starts from the same dense network of its seed, which is trained to convergence
([curves](figures/evidence_dense.png)). Those that train do so after each cut, of the same network, all for as long,
and learn to say what the dense network says (distillation, no labels); those that score columns or single weights,
filters and what is trained at F(4,3) train for one more stretch before the first cut. Of the volumes each seed has
another third for tests, so that all seeds together test every one once. The first layer is spared. What is measured
is the compressed network, written to its file and loaded back.

Intervals are a paired bootstrap's over test samples and seeds (95 %); an answer is *yes* or *no* where the whole
interval says so, and never of a single seed. Between the rates of a method its loss is taken on a straight line over
the logarithm of multiplies or time, which flatters what is compared with it a little. What intervals do not know:
digits are drawn from a few hundred handwritten ones, both sides of a patient may lie on both sides of a split, and
learning rates, stretches and what errors count in pruning were chosen on samples that seed 0 is tested on."""


def _claims(results: Results) -> str:
    lines = [(c.text, f"**{c.answer}**", c.numbers) for c in claims(results)]
    return "\n".join(["## Claims", "", *page.table(("claim", "", "numbers"), lines)])


def _task(results: Results, task: str) -> str:
    stretch, metric = results.setting.stretches[task], results.of(task, DENSE)[0].metric
    methods = [m for m in (EIGHT_BITS, *METHODS) if results.of(task, m)]
    rates = sorted({r for m in methods for r in results.rates(task, m)})
    lines = [[_named(results, task, m), *(_value(results, task, m, r) for r in rates)] for m in methods]
    costs = [[m, _share(r), *_cost(results, task, m, r)] for m in METHODS for r in results.rates(task, m) if r]
    head = ("method", "gone", "times fewer multiplies", "kept", "trainable", "of them in the domain", "stored bytes",
            f"width {results.setting.width}: ms", f"width {WIDE[task]}: ms", "all columns", "dense, accelerated",
            "OpenVINO", "int8", "torch")  # fmt: skip
    return "\n".join(
        [
            f"## {task}",
            "",
            f"{ABOUT[task]}. Epochs: dense {stretch.dense}, before the first cut {stretch.score}, after each cut "
            f"{stretch.retrain}; {stretch.samples} unlabelled samples for pruning. Dense {metric}: "
            f"{_score(results, task, DENSE, 0.0)}.",
            "",
            f"{metric} lost against the dense network, by what is gone (of the columns or weights; of direct "
            "convolution's multiplies where it is planned)",
            "",
            *page.tight(page.table(("method", *map(_share, rates)), lines)),
            "",
            "Cost of one network",
            "",
            *page.tight(page.table(head, costs)),
        ]
    )


def _named(results: Results, task: str, method: str) -> str:
    """The method, and how many seeds it was tried with where that is fewer than others."""
    seeds, most = (len({row.seed for row in results.of(task, name)}) for name in (method, DENSE))
    return method if seeds == most else f"{method} ({seeds} of {most} seeds)"


def _value(results: Results, task: str, method: str, removed: float) -> str:
    lost = results.lost(task, method, removed)
    return "" if lost is None else str(lost.interval)


def _cost(results: Results, task: str, method: str, removed: float) -> list[str]:
    row = results.row(task, method, removed)
    narrow, wide = (results.timing(task, method, removed, width) for width in (results.setting.width, None))
    assert row is not None
    trained = ["", ""] if method in UNTRAINED else [f"{row.trainable:,}", f"{row.domain:,}"]
    counts = [*trained, f"{row.stored:,}"]
    times = ["" if narrow is None else f"{narrow.ms:.2f}"]
    if wide is None:
        times += [""] * 6
    else:
        values = (wide.ms, wide.whole_ms, wide.dense_ms, wide.openvino_ms, wide.int8_ms, wide.torch_ms)
        times += [page.number(ms, ".2f") for ms in values]
    return [f"{row.fewer:.1f}", _share(row.kept), *counts, *times]


def _lost(results: Results, task: str, method: str, removed: float) -> tuple[str, str, str]:
    row, lost = results.row(task, method, removed), results.lost(task, method, removed)
    if row is None or lost is None:
        return "", "", ""
    return f"1/{row.fewer:.1f}", _score(results, task, method, removed), str(lost.interval)


def _score(results: Results, task: str, method: str, removed: float, digits: int = 4) -> str:
    score = results.score(task, method, removed)
    return "" if score is None else f"{score.interval.mean:.{digits}f}"


def _methods(results: Results) -> str:
    there = {row.method for row in results.rows}
    lines = ["## Methods", "", "Tile F(2,3)^3 unless said otherwise.", ""]
    lines += [f"- {name}: {entry.about}" for name, entry in METHODS.items() if name in there]
    eight = [f"- {EIGHT_BITS}: the dense network in OpenVINO, 8 bits (NNCF)"] if EIGHT_BITS in there else []
    return "\n".join([*lines, *eight])


def _certificate(rows: list[Row]) -> str:
    lines = [", ".join(filter(None, (s.machine, s.versions, s.date, f"commit {s.commit}"))) for s in stamps(rows)]
    return "\n".join(["## Certificate", "", *(f"- {line}" for line in lines)])


def _share(removed: float) -> str:
    return f"{100 * removed:.4g} %"
