"""Values derived from a tensor (transformed weights, packed weights), kept as long as the tensor holds what it held.

What it holds is known by a digest of all of it, read anew at each use: memory is written in more ways than torch
counts (`tensor.data`, NumPy, DLPack, another process). `trust` lets a caller who writes in none of them spare most of
that. The GPU's memory is not read (to look would wait for it): there values are kept of trusted tensors alone.

A value is kept from the second time on that a tensor comes unchanged: in training, where weights change every step,
there is neither a second copy nor a digest, and inference derives once. Values go with the memory they came from.

Nothing here refers to tensors, only to their memory: `torch.utils.swap_tensors` takes none that is referred to.
"""

import ctypes
import os
import threading
from collections.abc import Callable, Hashable
from hashlib import blake2b
from typing import Any, Generic, TypeVar
from weakref import ref

import torch
from torch import Tensor, UntypedStorage, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

Value = TypeVar("Value")
PLAIN = (Tensor, nn.Parameter)  # no subclasses, which may mean anything
SMALL = 1 << 15  # bytes that are compared themselves
MOST = 256  # values of a tensor, and views of a memory
_TRUSTED: dict[int, tuple["ref[UntypedStorage]", int]] = {}  # by storage: it, and at which use it is looked at
_SEEN: dict[int, dict[Hashable, "_Seen"]] = {}  # by storage, then by the view of it
_LOCK = threading.RLock()  # collection, which drops, may come at any moment


def trust(net: nn.Module, every: int = 0) -> None:
    """Look at the weights of `net` at every `every`-th use only (0: never), instead of at each, for changes that torch
    does not count: writes through `.data`, NumPy, DLPack, shared memory or the like.

    In-place operations, optimizers, `load_state_dict` and new parameters are seen at once all the same. After another
    write call `forget(net)`. `every=1` ends the trust; so do tensors that get other memory. Raises ValueError for
    `every` below 0.
    """
    if isinstance(every, bool) or not isinstance(every, int) or every < 0:
        raise ValueError(f"every: {every!r}; accepted are whole numbers from 0 (never look), 1 (at each use)")
    for tensor in _tensors(net):
        trust_tensor(tensor, every)


def trust_tensor(tensor: Tensor, every: int = 0) -> None:
    """`trust` for one tensor."""
    storage = tensor.untyped_storage()
    _TRUSTED.pop(id(storage), None)
    if every != 1:
        _TRUSTED[id(storage)] = ref(storage, _dropping(id(storage))), every


def forget(net: nn.Module) -> None:
    """Drop what is kept of the weights of `net`: its memory is free, and the next pass derives it anew."""
    with _LOCK:
        for tensor in _tensors(net):
            _SEEN.pop(id(tensor.untyped_storage()), None)


def _tensors(net: nn.Module) -> list[Tensor]:
    return [t for t in (*net.parameters(), *net.buffers()) if type(t) in PLAIN and not t.is_meta]


class _Seen:
    """A tensor as it was (its memory and form, the writes torch had counted, and from `settle` on what it held), and
    the values derived from it by (owner, key); None for one that came once."""

    def __init__(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        self._storage, self._form = ref(storage, _dropping(id(storage))), _form(tensor)
        self._digest: bytes | None = None
        self._uses = 0  # since it was looked at
        self.values = dict[tuple[int, Hashable], Any]()

    @property
    def used(self) -> bool:
        """Whether anything has been made of it: before that there is nothing to be wrong."""
        return any(value is not None for value in self.values.values())

    def settle(self, tensor: Tensor) -> None:
        """Note what `tensor` holds, where that can be read and is ever asked for."""
        if self._digest is None and tensor.is_cpu and _every(tensor) > 0:
            self._digest = _digest(tensor)

    def fits(self, tensor: Tensor) -> bool:
        """Whether `tensor` lies where this lay, in its form, and torch has counted no write since."""
        return self._form == _form(tensor) and self._storage() is tensor.untyped_storage()

    def holds(self, tensor: Tensor) -> bool:
        """Whether it fits and holds what it held when it was settled."""
        if not self.fits(tensor):
            return False
        every = _every(tensor)
        self._uses += 1
        if not tensor.is_cpu or every == 0 or (self._uses < every and self._digest is not None):
            return True
        self._uses = 0
        if self._digest != _digest(tensor):
            self._digest = None  # whoever asks next is told the same
        return self._digest is not None


class Derived(Generic[Value]):
    """Values by tensor and key. Thread-safe; they go when their tensor changes or its memory is given back.

    All instances share what they know of a tensor: what one finds changed is changed for all of them.
    """

    def get(self, tensor: Tensor, key: Hashable, make: Callable[[], Value]) -> Value | None:
        """The value of `tensor`; made now if it came before with nothing changed, or is trusted never to change.

        None if this is its first time, and for what holds no numbers of its own or none that can be looked at: meta and
        fake tensors, those in transforms, and on a GPU those that are not trusted.
        """
        if not is_plain(tensor) or tensor.numel() == 0 or not (tensor.is_cpu or _every(tensor) != 1):
            return None
        own = (id(self), key)
        with _LOCK:
            seen = _seen(tensor)
            if own not in seen.values:
                if len(seen.values) >= MOST:
                    seen.values.clear()
                seen.values[own] = None
                if _every(tensor) > 0:
                    return None
            seen.settle(tensor)  # before anything is made of it: a write meanwhile is then seen the next time
        value: Value | None = seen.values.get(own)
        if value is None:
            value = seen.values[own] = make()  # outside the lock: others look up meanwhile, at worst two make the same
        return value

    def find(self, tensor: Tensor, key: Hashable) -> Value | None:
        """The value of `tensor` if it is there, for a tensor known to be plain."""
        views = _SEEN.get(id(tensor.untyped_storage()))
        seen = None if views is None else views.get(_view(tensor))
        value: Value | None = None if seen is None else seen.values.get((id(self), key))
        return value if seen is not None and value is not None and seen.holds(tensor) else None

    def values(self) -> list[Value]:
        """All that are kept."""
        with _LOCK:
            pairs = [pair for views in list(_SEEN.values()) for seen in views.values() for pair in seen.values.items()]
        return [value for (owner, _), value in pairs if owner == id(self) and value is not None]


def _seen(tensor: Tensor) -> _Seen:
    """What is known of `tensor` as it is now; nothing, if it is not what it was."""
    views = _SEEN.setdefault(id(tensor.untyped_storage()), {})
    seen = views.get(_view(tensor))
    if seen is None or not (seen.holds(tensor) if seen.used else seen.fits(tensor)):
        if len(views) >= MOST:
            views.clear()
        seen = views[_view(tensor)] = _Seen(tensor)
    return seen


def _dropping(place: int) -> Callable[["ref[UntypedStorage]"], None]:
    def drop(_: "ref[UntypedStorage]") -> None:
        with _LOCK:
            _SEEN.pop(place, None)
            _TRUSTED.pop(place, None)

    return drop


def _renew_lock() -> None:
    global _LOCK
    _LOCK = threading.RLock()  # in a forked child: another thread may have held the parent's


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def is_plain(*tensors: Tensor) -> bool:
    """Whether real tensors hold numbers and nothing listens to what is done with them: no tracer, no transform."""
    if _get_current_dispatch_mode() is not None or torch._C._functorch.peek_interpreter_stack() is not None:
        return False
    if torch._C._get_tracing_state() is not None:
        return False
    return all(type(t) in PLAIN and not (t.is_meta or t.is_neg()) for t in tensors)


def _view(tensor: Tensor) -> Hashable:
    return tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype


def _form(tensor: Tensor) -> Hashable:
    """Where and how it lies, and the writes torch has counted (of tensors made in inference mode it counts none)."""
    version = None if tensor.is_inference() else tensor._version
    return tensor.data_ptr(), version, tensor.shape, tensor.stride(), tensor.dtype


def content(tensor: Tensor) -> bytes:
    """What a plain tensor holds, to compare; on a GPU, where it lies and how often torch saw it written."""
    return _digest(tensor) if tensor.is_cpu else repr(_form(tensor)).encode()


def as_text(held: bytes) -> str:
    """`content` as an argument of operators."""
    return blake2b(held, digest_size=16).hexdigest()


def _check_content(tensor: Tensor, expected: str) -> None:
    if tensor.is_cpu and as_text(content(tensor)) != expected:
        raise RuntimeError(
            "a layer's mask or kept set was written to after torch.compile made this function of what it held; call "
            "the layer once outside of torch.compile, and it is compiled anew"
        )


# Said to write to the tensor, because what has no result and changes nothing is left out of compiled functions.
torch.library.define(
    "lrw::check_content", "(Tensor(a!) tensor, str expected) -> ()", tags=[torch.Tag.pt2_compliant_tag]
)
torch.library.impl("lrw::check_content", "default", _check_content)
torch.library.register_fake("lrw::check_content", lambda tensor, expected: None)


def _every(tensor: Tensor) -> int:
    """At which use of it a tensor is looked at."""
    trusted = _TRUSTED.get(id(tensor.untyped_storage())) if _TRUSTED else None
    return 1 if trusted is None else trusted[1]


def _digest(tensor: Tensor) -> bytes:
    """Of the memory from the first number to the last."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    size = (last + 1) * tensor.element_size()
    if size <= SMALL:
        return ctypes.string_at(tensor.data_ptr(), size)
    from lrw_kernels.cpu.digest import digest  # loads a kernel

    return digest(tensor.data_ptr(), size, torch.get_num_threads())
