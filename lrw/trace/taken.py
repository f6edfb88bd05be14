"""Which memory of torch's the numbers of nodes are copies of, and which they read where it lies."""

from collections import Counter
from collections.abc import Iterable

from torch import Tensor

from lrw.unchanged import extent, overlap
from lrw_kernels.network.graph import Node
from lrw_kernels.network.operators import Array, Linear


class Taken:
    """Memory, as ranges of addresses, that constants were read from while nodes were made of them."""

    def __init__(self) -> None:
        self._copied: Counter[range] = Counter()
        self._lent: Counter[range] = Counter()

    def note(self, values: Iterable[object]) -> None:
        """The tensors among `values` are read by an operator, each once, which may make numbers of its own of them."""
        self._copied.update(extent(t) for t in values if isinstance(t, Tensor))

    def lend(self, t: Tensor) -> None:
        """What was noted of `t` once is no copy: a node reads it where it lies."""
        self._copied[extent(t)] -= 1
        self._lent[extent(t)] += 1

    def only_lent(self, nodes: Iterable[Node]) -> tuple[range, ...]:
        """The memory that nothing but the weights of linear layers among `nodes` came of: whatever is written there,
        they have it."""
        weights = [node.operator.weight for node in nodes if isinstance(node.operator, Linear)]
        kept = Counter(map(addresses, weights))
        others = [memory for memory, count in self._copied.items() if count]
        others += [memory for memory, count in self._lent.items() if count > kept[memory]]  # folded since
        return tuple(lent for lent in self._lent if not any(overlap(lent, other) for other in others))


def addresses(held: Array) -> range:
    """Where the bytes of a contiguous array lie."""
    return range(held.ctypes.data, held.ctypes.data + held.nbytes)
