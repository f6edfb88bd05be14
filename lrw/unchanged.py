"""Values derived from a tensor (transformed weights, packed weights), kept as long as the tensor stays as it was.

What a tensor was is known from its identity, address and version. Writes through `tensor.data` or NumPy change no
version; a sample of values catches those that change many (`tensor.data.mul_(2)`), not those that change a few: write
under `torch.no_grad()` instead. On a GPU there is no sample: to look at it would wait for the GPU. Tensors made in
inference mode have no version, and nothing of theirs is kept.

A value is kept from the second time on that a tensor comes unchanged: in training, where weights change every step,
there is no second copy, and inference derives once.
"""

import os
import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar
from weakref import ref

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.utils._python_dispatch import _get_current_dispatch_mode

Value = TypeVar("Value")
SAMPLES = 32
PLAIN = (Tensor, Parameter)  # no subclasses, which may mean anything


class _Seen(Generic[Value]):
    """A tensor as it was, and the values derived from it then; None for a key that came once."""

    def __init__(self, tensor: Tensor, forget: Callable[["ref[Tensor]"], None]) -> None:
        self.tensor = ref(tensor, forget)
        self.values: dict[Hashable, Value | None] = {}
        self._version, self._address = tensor._version, tensor.data_ptr()
        self._shape, self._stride, self._dtype = tensor.shape, tensor.stride(), tensor.dtype
        self._sample = _sample(tensor) if tensor.is_cpu else None  # a view: what it holds now
        self._numbers = None if self._sample is None else self._sample.tolist()  # what it held

    def holds(self, tensor: Tensor) -> bool:
        """Whether `tensor` is what was seen, unchanged."""
        if self.tensor() is not tensor or self._version != tensor._version or self._address != tensor.data_ptr():
            return False
        same = self._shape == tensor.shape and self._stride == tensor.stride() and self._dtype == tensor.dtype
        return same and (self._sample is None or bool(self._numbers == self._sample.tolist()))


class Derived(Generic[Value]):
    """Values by tensor and key, `most` of them for a tensor. Thread-safe; values go when their tensor changes or is
    collected."""

    def __init__(self, most: int = 256) -> None:
        self._most = most
        self._seen: dict[int, _Seen[Value]] = {}
        self._lock = threading.RLock()  # collection, which forgets, may come at any moment
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew_lock)

    def get(self, tensor: Tensor, key: Hashable, make: Callable[[], Value]) -> Value | None:
        """The value of `tensor`; made now if it came before with nothing changed, None if this is its first time.

        None also for inference tensors and what holds no numbers of its own: meta and fake ones, those in transforms.
        """
        if not is_plain(tensor) or tensor.is_inference():
            return None
        place = id(tensor)
        with self._lock:
            seen = self._seen.get(place)
            if seen is None or not seen.holds(tensor):
                seen = self._seen[place] = _Seen(tensor, lambda dying: self._forget(place, dying))
            if key not in seen.values:
                if len(seen.values) >= self._most:
                    seen.values.clear()
                seen.values[key] = None
                return None
        value = seen.values.get(key)
        if value is None:
            value = seen.values[key] = make()  # outside the lock: others look up meanwhile, at worst two make the same
        return value

    def find(self, tensor: Tensor, key: Hashable) -> Value | None:
        """The value of `tensor` if it is there, for a tensor known to be plain."""
        seen = self._seen.get(id(tensor))
        value = None if seen is None else seen.values.get(key)
        return value if seen is not None and value is not None and seen.holds(tensor) else None

    def values(self) -> list[Value]:
        """All that are kept."""
        with self._lock:
            return [v for seen in list(self._seen.values()) for v in seen.values.values() if v is not None]

    def _renew_lock(self) -> None:
        self._lock = threading.RLock()  # another thread may have held the parent's

    def _forget(self, place: int, dying: "ref[Tensor]") -> None:
        with self._lock:
            if place in self._seen and self._seen[place].tensor is dying:
                del self._seen[place]


def is_plain(*tensors: Tensor) -> bool:
    """Whether real tensors hold numbers and nothing listens to what is done with them: no tracer, no transform."""
    if _get_current_dispatch_mode() is not None or torch._C._functorch.peek_interpreter_stack() is not None:
        return False
    if torch._C._get_tracing_state() is not None:
        return False
    return all(type(t) in PLAIN and not (t.is_meta or t.is_neg()) for t in tensors)


def _sample(tensor: Tensor) -> Tensor:
    flat = tensor.detach().reshape(-1) if tensor.is_contiguous() else tensor.detach()[..., 0, 0]
    return flat.reshape(-1)[:: max(1, flat.numel() // SAMPLES)]
