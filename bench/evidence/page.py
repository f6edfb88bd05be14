"""The page out of results: tables, figures and claims, nothing typed in by hand.

`bench.report` makes docs/evidence.md out of those committed.
"""

from pathlib import Path
from statistics import mean

from bench import page
from bench.evidence import figures
from bench.evidence.chain import DENSE
from bench.evidence.claims import claims, spread, tasks
from bench.evidence.latency import WIDE, Timing
from bench.evidence.methods import METHODS
from bench.evidence.rows import Row, select
from bench.evidence.settings import FULL, MAIN, REMOVED, SETTINGS, SMALL, Setting
from bench.rows import read, stamps

ABOUT = {
    "digits": "moving digits, 40 classes, C3D (embedded data: anyone can repeat it)",
    "adrenal": "AdrenalMNIST3D at 28^3, C3D; published AUC of ResNet-18 + 3D is 0.827 (MedMNIST v2, Sci Data 10:41)",
    "hippocampus": "Medical Segmentation Decathlon, task 4, 3D U-Net; the fold tested changes with the seed",
}


def write(table: Path, times: Path, folder: Path) -> Path:
    """Write evidence.md and its figures into `folder`, out of rows and (where they were taken) times; returns it."""
    known = read(Row, table)
    for task in tasks(known):
        figures.draw(known, task, folder / "figures" / f"evidence_{task}.png")
    written = folder / "evidence.md"
    written.write_text(text(table, times))
    return written


def text(table: Path, times: Path) -> str:
    """The page."""
    known = read(Row, table)
    setting = SETTINGS[known[-1].setting]  # the one of the last run, where there are several
    stamped, known = stamps(known), [row for row in known if row.setting == setting.name]
    timings = [t for t in read(Timing, times) if t.setting == setting.name]
    parts = [_head(setting), _claims(known, timings)]
    parts += [_task(setting, known, timings, task) for task in tasks(known)]
    return "\n\n".join([*parts, _methods(known), _certificate(stamped)]) + "\n"


def _head(setting: Setting) -> str:
    seeds = ", ".join(map(str, range(setting.seeds)))
    return f"""# Evidence

Made by `nox -s evidence` (setting "{setting.name}", networks of width {setting.width}, seeds {seeds}) out of
`evidence.csv` and `evidence_latency.csv`; this page and its figures are written by `bench/evidence/page.py`.
`nox -s evidence -- --setting full --device cuda` trains networks {FULL.width // SMALL.width} times as wide, at full
resolution, several times as long.

Every method starts from the same dense network of its seed, trains for a stretch, is cut to {_share(REMOVED[0])}
removed, retrained, cut further, and so on through {", ".join(map(_share, REMOVED[1:]))}; all stretches are as long for
all methods. The first layer is spared. What is measured is the compressed network, written to its file and loaded back.
The networks are small and trained briefly, and test sets are small: differences of the size of the deviations (±, over
seeds) say nothing."""


def _claims(known: list[Row], timings: list[Timing]) -> str:
    lines = [(c.text, f"**{c.answer}**", c.numbers) for c in claims(known, timings)]
    return "\n".join(["## Claims", "", *page.table(("claim", "", "numbers"), lines)])


def _task(setting: Setting, known: list[Row], timings: list[Timing], task: str) -> str:
    own = [row for row in known if row.task == task]
    stretch, dense, rates = setting.stretches[task], select(own, task, DENSE, 0.0), (0.0, *REMOVED)
    methods = [m for m in METHODS if any(row.method == m for row in own)]
    metric = dense[0].metric
    values = [[m, *(_value(select(own, task, m, r)) for r in rates)] for m in methods]
    return "\n".join(
        [
            f"## {task}",
            "",
            f"{ABOUT[task]}. Epochs: dense {stretch.dense}, before the first cut {stretch.score}, after each cut "
            f"{stretch.retrain}. Dense {metric}: {_value(dense)}.",
            "",
            f"![{task}](figures/evidence_{task}.png)",
            "",
            f"{metric} on the test split after removing",
            "",
            *page.table(("method", *map(_share, rates)), values),
            "",
            f"Cost of one network at batch 1; width {setting.width} is what was trained, width {WIDE[task]} has its",
            "patterns; dense is the faster of torch's layouts of that network, all columns are those before cuts.",
            "",
            *_costs(own, timings, task, setting.width),
        ]
    )


def _costs(own: list[Row], timings: list[Timing], task: str, width: int) -> list[str]:
    counts = ("kept", "trainable", "of them in the domain", "stored bytes", "multiplies")
    head = ("method", "removed", *counts, "ms", f"width {WIDE[task]}: ms", "dense ms", "all columns ms")
    there = [(m, r) for m in MAIN for r in REMOVED if select(own, task, m, r)]
    return page.table(head, [_cost(own, timings, task, width, m, r) for m, r in there])


def _cost(own: list[Row], timings: list[Timing], task: str, width: int, method: str, removed: float) -> list[str]:
    found = select(own, task, method, removed)
    times = {t.width: t for t in timings if (t.task, t.method, t.removed) == (task, method, removed)}
    narrow, wide = times.get(width), times.get(WIDE[task])
    counts = [f"{n:,}" for n in (found[0].trainable, found[0].domain, found[0].stored, found[0].multiplies)]
    kept = _share(mean(row.kept for row in found))
    measured = [f"{narrow.ms:.2f}" if narrow else ""]
    measured += [f"{wide.ms:.1f}", f"{wide.dense_ms:.1f}", f"{wide.all_ms:.1f}"] if wide else [""] * 3
    return [method, _share(removed), kept, *counts, *measured]


def _methods(known: list[Row]) -> str:
    there = {row.method for row in known}
    lines = ["## Methods", "", "Score product unless said otherwise; tile F(2,3)^3 unless said otherwise.", ""]
    return "\n".join([*lines, *(f"- {name}: {entry.about}" for name, entry in METHODS.items() if name in there)])


def _certificate(stamped: list[Row]) -> str:
    lines = [", ".join(filter(None, (s.machine, s.versions, s.date, f"commit {s.commit}"))) for s in stamped]
    return "\n".join(["## Certificate", "", *(f"- {line}" for line in lines)])


def _value(found: list[Row]) -> str:
    values = [row.value for row in found]
    if len(values) == 1:
        return f"{values[0]:.4f} (one seed)"
    return f"{mean(values):.4f} ± {spread(values):.4f}" if values else ""


def _share(removed: float) -> str:
    return f"{100 * removed:.4g} %"
