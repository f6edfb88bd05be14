"""Put what was measured on one page, to be opened in a browser: `python -m bench.overview`, `nox -s bench -- overview`.

The page has the committed results of all machines (networks, layers, a training step, pruned networks), how those of
networks came to be over commits, and with --compare what changed since another commit, as far as the noise of the peers
that were timed beside lets it be told. Nothing is timed: the other benches write the results. Exit codes: 0 done, 2
wrong arguments or a file that cannot be written, 130 stopped by Ctrl-C.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from bench import networks
from bench.command import Parser, checked, file
from bench.overview import history
from bench.overview.compare import Comparison, compare
from bench.overview.sheet import NETWORKS, RESULTS, Fresh, committed, sheet
from bench.overview.timed import of_network


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page and say where it is."""
    arguments = _arguments(argv)
    text = sheet(Fresh(), arguments.compare or "", _changes(arguments.compare))
    try:
        arguments.out.write_text(text)
    except OSError as error:
        print(f"overview: {error}", file=sys.stderr)
        return 2
    print(arguments.out)
    return 0


def _changes(ref: str | None) -> list[tuple[str, Comparison]]:
    """Of the committed networks on each machine since `ref`; none without one."""
    if ref is None:
        return []
    now = committed(networks.Row, NETWORKS)
    then = {of: history.rows(networks.Row, RESULTS / f"{name}.csv", ref) for of, name in NETWORKS.items()}
    return [(of, compare([*map(of_network, then[of])], [*map(of_network, now[of])])) for of in NETWORKS]


def _arguments(argv: Sequence[str] | None) -> Namespace:
    parser = Parser("overview", __doc__)
    parser.add_argument("--out", type=file, default=Path("overview.html"), metavar="FILE", help="default overview.html")
    parser.add_argument("--compare", type=checked(history.resolved), metavar="REF", help="a commit to compare with")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
