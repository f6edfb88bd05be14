"""What is written down: a row for each network, whole chains or nothing, and the curves of the dense ones."""

from collections.abc import Iterable
from dataclasses import dataclass

from bench import rows


@dataclass(frozen=True)
class Row(rows.Row):
    """One network on one task: how much is gone, how well it does, what it costs.

    removed: share asked for, of columns or weights, of direct convolution's multiplies where it is planned; kept: share
    of the Winograd layers' weights (of the filters' where channels go) there is; value: the task's metric on the test
    samples, of the compressed network as loaded from its file; trainable (domain: in Winograd layers only) and total
    parameters while it was trained; stored: bytes of the file; fewer: multiplies of direct convolution over those of
    the weights that are left, in the layers that are pruned.
    """

    setting: str
    task: str
    method: str
    seed: int
    removed: float
    kept: float
    metric: str
    value: float
    trainable: int
    domain: int
    parameters: int
    stored: int
    fewer: float
    seconds: float

    @property
    def chain(self) -> tuple[str, str, str, int]:
        """What it belongs to: setting, task, method, seed."""
        return self.setting, self.task, self.method, self.seed


@dataclass(frozen=True)
class Epoch(rows.Row):
    """How far a dense network was after an epoch: mean loss over its training samples, metric on the test samples."""

    setting: str
    task: str
    seed: int
    epoch: int
    loss: float
    value: float


@dataclass(frozen=True)
class Timing(rows.Row):
    """One network of one kind and `width` at batch 1, medians in turns with the dense network in torch (the faster
    layout), accelerated, in OpenVINO in float32 and in 8 bits (None where it is not installed).

    ms is that of the pruned network, accelerated; whole_ms that of the network with all its columns, likewise (of the
    dense one where nothing is in the domain). multiplies are those of the whole network for one sample, products in
    Winograd layers, as computed; whole_multiplies those with every column.
    """

    setting: str
    task: str
    method: str
    width: int
    removed: float
    ms: float
    whole_ms: float
    torch_ms: float
    dense_ms: float
    openvino_ms: float | None
    int8_ms: float | None
    multiplies: int
    whole_multiplies: int


def select(found: Iterable[Row], task: str, method: str, removed: float) -> list[Row]:
    """The rows of all seeds, in their order."""
    chosen = [r for r in found if (r.task, r.method, r.removed) == (task, method, removed)]
    return sorted(chosen, key=lambda r: r.seed)
