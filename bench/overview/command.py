"""Put what was measured on one page, to be opened in a browser: `python -m bench.overview`, `nox -s bench -- overview`.

The page has the committed results of all machines (networks, layers, a training step, pruned networks), how those of
networks came to be over commits, and with --compare what changed since another commit, as far as the noise of the peers
that were timed beside lets it be told. Nothing is timed: the other benches write the results. Exit codes: 0 done, 2
wrong arguments or a file that cannot be written, 130 stopped by Ctrl-C.
"""

import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench import certificate, networks
from bench.command import Parser, checked, file
from bench.cpu import inference, training
from bench.evidence.results import Results
from bench.evidence.tables import Tables
from bench.overview import history, page
from bench.overview.compare import Timed, compare
from bench.rows import read

RESULTS = Path(__file__).parents[1] / "results"
NETWORKS = {"Zen 4": "networks_zen4", "Xeon": "networks_xeon"}
LAYERS = {"AMD EPYC, family 26": "cpu", "Zen 4": "cpu_zen4"}
TRAINING = {"AMD EPYC, family 26": "cpu_training"}
PEERS = ("contiguous", "channels_last", "compiled", "openvino", "onnxruntime")


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page and say where it is."""
    arguments = _arguments(argv)
    found = {of: read(networks.Row, RESULTS / f"{name}.csv") for of, name in NETWORKS.items()}
    parts = [f'<p class="made">{certificate.commit()}</p>', *page.networks_part(found)]
    if arguments.compare is not None:
        parts += ["<h2>Changes</h2>", *_changes(arguments.compare, found)]
    layers = {of: read(inference.Row, RESULTS / f"{name}.csv") for of, name in LAYERS.items()}
    steps = {of: read(training.Row, RESULTS / f"{name}.csv") for of, name in TRAINING.items()}
    parts += [*page.layers_part(layers), *page.training_part(steps), *page.pruning_part(Results(Tables(RESULTS)))]
    past = [part for of, name in NETWORKS.items() for part in page.history_part(of, _history(name))]
    parts += ["<h2>Over commits</h2>", *past] if past else []
    arguments.out.write_text(page.page("lrw: what was measured", parts))
    print(arguments.out)
    return 0


def timed(row: networks.Row) -> Timed:
    """A network as something that is compared."""
    peers = {name: ms for name in PEERS if (ms := getattr(row, f"{name}_ms")) is not None}
    return Timed(row.network, row.lrw_ms, peers, row.versions)


def _changes(ref: str, found: Mapping[str, Sequence[networks.Row]]) -> list[str]:
    parts = []
    for of, name in NETWORKS.items():
        then = history.rows(networks.Row, RESULTS / f"{name}.csv", ref)
        parts += page.comparison_part(of, ref, compare([*map(timed, then)], [*map(timed, found[of])]))
    return parts


def _history(name: str) -> list[tuple[str, list[networks.Row]]]:
    path = RESULTS / f"{name}.csv"
    return [(at.commit, history.rows(networks.Row, path, at.commit)) for at in history.versions(path)]


def _arguments(argv: Sequence[str] | None) -> Namespace:
    parser = Parser("overview", __doc__)
    parser.add_argument("--out", type=file, default=Path("overview.html"), metavar="FILE", help="default overview.html")
    parser.add_argument("--compare", type=checked(history.resolved), metavar="REF", help="a commit to compare with")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
