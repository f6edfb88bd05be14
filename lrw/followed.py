"""Buffers a layer's geometry follows: what they hold, and the operator by which compiled functions ask for it."""

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

import torch
from torch import Tensor
from torch._C import _functorch as functorch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import _disable_current_modes, _get_current_dispatch_mode

from lrw.unchanged import PLAIN, digest_of, version

_ANY = iter(range(1 << 62))


def content(buffer: Tensor) -> bytes | None:
    """What a buffer holds, to compare: on a GPU by where it lies and how often torch saw it written.

    None where it holds nothing yet (meta, fake). Raises RuntimeError for one that holds something else for each sample
    of a vmap: a layer has one geometry.
    """
    while functorch.is_functorch_wrapped_tensor(buffer):
        if functorch.is_batchedtensor(buffer):
            raise RuntimeError(
                "a layer's mask or kept set differs from sample to sample of vmap; accepted is one for all"
            )
        buffer = functorch.get_unwrapped(buffer)
    if buffer.is_meta or isinstance(buffer, FakeTensor):
        return None
    if type(buffer) not in PLAIN:
        return str(next(_ANY)).encode()  # a subclass may mean anything: it is asked each time
    return digest_of(buffer) if buffer.is_cpu else repr(version(buffer)).encode()


def as_text(held: bytes) -> str:
    """`content` as an argument of operators."""
    return blake2b(held, digest_size=16).hexdigest()


@contextmanager
def without_modes() -> Iterator[None]:
    """Operations meant for us alone: no tracer writes them down, no counter counts them."""
    if _get_current_dispatch_mode() is None:
        yield
    else:
        with _disable_current_modes():
            yield


def _while_kept(bias: Tensor, buffer: Tensor, expected: str) -> Tensor:
    """A copy of `bias`, so that what is computed with it depends on what `buffer` holds."""
    held = content(buffer) if buffer.is_cpu else None
    if held is not None and as_text(held) != expected:
        raise RuntimeError(
            "a layer's mask or kept set was written to after a function was made of what it held; call the layer once "
            "outside of torch.compile and it is compiled anew, or export it again"
        )
    return bias.clone()


def _save_nothing(ctx: object, inputs: tuple[object, ...], output: Tensor) -> None:
    pass


torch.library.define(
    "lrw::while_kept", "(Tensor bias, Tensor buffer, str expected) -> Tensor", tags=[torch.Tag.pt2_compliant_tag]
)
torch.library.impl("lrw::while_kept", "default", _while_kept)
torch.library.register_fake("lrw::while_kept", lambda bias, buffer, expected: torch.empty_like(bias))
torch.library.register_autograd("lrw::while_kept", lambda ctx, grad: (grad, None, None), setup_context=_save_nothing)
