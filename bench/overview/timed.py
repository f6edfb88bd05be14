"""Rows as what is compared: our milliseconds, and those of the peers by which the minutes are told."""

from bench import networks, pruned, startup
from bench.cpu import inference, training
from bench.overview.compare import Timed


def of_network(row: networks.Row) -> Timed:
    """A network, beside every peer that was there."""
    peers = {name: ms for name in networks.PEERS if (ms := getattr(row, f"{name}_ms")) is not None}
    return Timed(row.network, row.lrw_ms, peers, row.versions)


def of_layer(row: inference.Row) -> Timed:
    """A layer at a share of its columns, beside torch's fastest form."""
    return Timed(f"{row.case}, {row.share:.0%}", row.lrw_ms, {"torch": row.torch_ms}, row.versions)


def of_step(row: training.Row) -> Timed:
    """A training step, beside torch's faster form."""
    return Timed(row.case, row.lrw_ms, {"torch": row.torch_ms}, row.versions)


def of_pruned(row: pruned.Row) -> Timed:
    """A pruned network, beside the whole one in torch."""
    return Timed(row.network, row.pruned_ms, {"torch": row.torch_ms}, row.versions)


def of_wait(row: startup.Row) -> Timed:
    """What a new process waits for, beside the import of torch."""
    return Timed(row.case, 1e3 * row.seconds, {"import torch": 1e3 * row.torch_s}, row.versions)
