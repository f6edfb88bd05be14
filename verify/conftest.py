"""Hypothesis profiles, the exported networks, and poisoned memory for every test: what is empty starts as NaN."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, settings

from lrw import backends
from verify.programs.exported import built, native

__all__ = ["built", "native"]

_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile("fixed", max_examples=40, derandomize=True, deadline=None, suppress_health_check=_SLOW)
settings.register_profile("nightly", max_examples=2000, deadline=None, suppress_health_check=_SLOW, print_blob=True)
settings.load_profile("fixed")


@pytest.fixture
def by_tensor_operations() -> Iterator[None]:
    """Layers compute by torch: for tests in which each network has kept sets, and hence kernels, of its own."""
    before = backends._FASTEST["cpu"]
    backends._FASTEST["cpu"] = "torch"
    yield
    backends._FASTEST["cpu"] = before


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """torch.empty gives NaN: a value nobody wrote shows up in the first comparison."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)
