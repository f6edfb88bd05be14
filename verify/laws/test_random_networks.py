"""Random networks, accelerated, compute what they are in float64, within the errors their operators may make."""

import torch
from hypothesis import assume, given, settings
from torch.utils import _pytree as pytree

import lrw
from lrw.engine import PROGRAM
from lrw_kernels.choice.convolution import prior
from verify.programs.followed import expected
from verify.random_networks import RandomNetwork, random_networks
from verify.tolerances import USELESS, assert_close

EXAMPLES = max(1, settings.default.max_examples // 5)  # each is followed, compiled and interpreted
RTOL = 1e-4


@settings(max_examples=EXAMPLES)
@given(random_networks())
def test_accelerated_networks_compute_what_they_are(drawn: RandomNetwork) -> None:
    found = expected(drawn.net, drawn.args, prior(RTOL))
    assume(all((bound < USELESS * y.abs().max()).all() for y, bound in found))
    fast = lrw.accelerate(drawn.net, drawn.args, rtol=RTOL, measure=False)
    last = tuple(x.to(memory_format=torch.channels_last_3d) for x in drawn.args)
    with torch.no_grad():
        for args in (drawn.args, last):
            given, plain = pytree.tree_leaves(fast(*args)), pytree.tree_leaves(drawn.net(*args))
            assert fast.report.last == PROGRAM
            for i, (y, torchs, (exact, bound)) in enumerate(zip(given, plain, found, strict=True)):
                channels = bound.view(1, -1, *[1] * (y.dim() - 2)).numpy()
                assert y.dtype == torchs.dtype
                assert_close(y.double().numpy(), exact.numpy(), channels, f"output {i}")
