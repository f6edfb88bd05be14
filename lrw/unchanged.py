"""Values derived from a tensor (transformed weights, packed weights), kept as long as the tensor holds what it held.

What it holds is known by a digest of all of it, read anew at each use: memory is written in more ways than torch
counts (`tensor.data`, NumPy, DLPack, another process). `trust` lets a caller who writes in none of them spare most of
that. The GPU's memory is not read (to look would wait for it): there values are kept of trusted tensors alone.

A value is kept from the second time on that a tensor comes unchanged: in training, where weights change every step,
there is neither a second copy nor a digest, and inference derives once. Values go with the memory they came from.

Nothing here refers to tensors, only to their memory: `torch.utils.swap_tensors` takes none that is referred to. There
is no lock: memory may be given back, and so be dropped here, at any moment of any thread. Dictionaries change in single
steps that nothing interrupts; at worst two threads derive the same.
"""

import ctypes
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar, cast
from weakref import ref

import torch
from torch import Tensor, UntypedStorage, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from lrw.typed import typed

Value = TypeVar("Value")
PLAIN = (Tensor, nn.Parameter)  # no subclasses, which may mean anything
_EARLY = torch._C.DispatchKey.PreDispatch  # included while modes listen before autograd
SMALL = 1 << 15  # bytes that are compared themselves
MOST_VALUES, MOST_VIEWS = 256, 4096  # of a tensor, of a memory
Place = tuple[int, Hashable]  # a storage's id, and the view of it
_TRUSTED: dict[Place, tuple["ref[UntypedStorage]", int]] = {}  # and at which use it is looked at
_forgotten = 0
_trust_state = object()  # another one after each change of what is trusted
_SEEN: dict[int, dict[Hashable, "_Seen"]] = {}  # by storage, then by view


@typed
def trust(net: nn.Module, every: int = 0) -> None:
    """Look at the weights of `net` at every `every`-th use only (0: never), instead of at each, for changes that torch
    does not count: writes through `.data`, NumPy, DLPack, shared memory or the like.

    In-place operations, optimizers, `load_state_dict` and new parameters are seen at once all the same. After another
    write call `forget(net)`. `every=1` ends the trust; so do tensors that get other memory. Tensors made in inference
    mode, whose writes torch never counts, are looked at as before. Raises ValueError for `every` below 0.
    """
    if isinstance(every, bool) or not isinstance(every, int) or every < 0:
        raise ValueError(f"every: {every!r}; accepted are whole numbers from 0 (never look), 1 (at each use)")
    for tensor in _tensors(net):
        trust_tensor(tensor, every)


def trust_tensor(tensor: Tensor, every: int = 0) -> None:
    """`trust` for one tensor."""
    place = _place(tensor)
    _TRUSTED.pop(place, None)
    if every != 1:

        def end(_: object) -> None:
            _TRUSTED.pop(place, None)
            _trust_changed()

        _TRUSTED[place] = ref(tensor.untyped_storage(), end), every
    _trust_changed()


def trust_state() -> object:
    """An object that is another one once something else is trusted."""
    return _trust_state


def forgotten() -> int:
    """How often something was forgotten."""
    return _forgotten


def _trust_changed() -> None:
    global _trust_state
    _trust_state = object()


@typed
def forget(net: nn.Module) -> None:
    """Drop what is kept of the weights of `net`: its memory is free, and the next pass derives it anew. Accelerated
    networks look at all of their weights once more, those that are trusted too."""
    global _forgotten
    for tensor in _tensors(net):
        _SEEN.pop(id(tensor.untyped_storage()), None)
    _forgotten += 1


def _tensors(net: nn.Module) -> list[Tensor]:
    tensors = (*net.parameters(), *net.buffers())
    return [t for t in tensors if type(t) in PLAIN and not t.is_meta and t.layout is torch.strided]


class Mark:
    """A tensor as it was: its memory and form, and the writes torch had counted. `gone` is called when its memory is
    given back."""

    def __init__(self, tensor: Tensor, gone: Callable[[object], None] | None = None) -> None:
        self._storage, self._form, self._writes = ref(tensor.untyped_storage(), gone), form(tensor), writes(tensor)
        self._uses = 0  # since it was looked at

    def lies(self, tensor: Tensor) -> bool:
        """Whether `tensor` lies where this lay, in its form."""
        return self._form == form(tensor) and self._storage() is tensor.untyped_storage()

    def fits(self, tensor: Tensor) -> bool:
        """Whether `tensor` lies where this lay, in its form, and torch has counted no write since."""
        return self._writes == writes(tensor) and self.lies(tensor)

    def still_holds(self, tensor: Tensor, held: bytes | None) -> bool:
        """Whether a tensor that fits holds what it `held`."""
        every = rate(tensor)
        self._uses += 1
        if every == 0 or (self._uses < every and held is not None):
            return True
        self._uses = 0
        return tensor.is_cpu and held == digest_of(tensor)


class _Seen(Mark):
    """A mark and the values derived from what it marks, by (owner, key): what it held when the value was made of it
    (None: nobody asks), and the value. A key that came once has neither."""

    def __init__(self, tensor: Tensor) -> None:
        place = id(tensor.untyped_storage())

        def drop(_: object) -> None:
            _SEEN.pop(place, None)

        super().__init__(tensor, drop)
        self.values: dict[tuple[int, Hashable], tuple[bytes | None, Any] | None] = {}


class Derived(Generic[Value]):
    """Values by tensor and key; they go when their tensor changes or its memory is given back.

    For objects that live as long as the process. All of them share what they know of a tensor: what one finds changed
    is changed for all.
    """

    def get(self, tensor: Tensor, key: Hashable, make: Callable[[], Value]) -> Value | None:
        """The value of `tensor`; made now if it came before with nothing changed, or is trusted never to change.

        None if this is its first time, and for what holds no numbers of its own or none that can be looked at: meta and
        fake tensors, those in transforms, and on a GPU those that are not trusted.
        """
        if not is_plain(tensor) or tensor.numel() == 0 or not (tensor.is_cpu or rate(tensor) != 1):
            return None
        found = self.find(tensor, key)
        if found is not None:
            return found
        own, seen = (id(self), key), _seen(tensor)
        if own not in seen.values and rate(tensor) > 0:
            _add(seen.values, own, None, MOST_VALUES)
            return None
        held = held_by(tensor)
        value = make()
        if held is None or held == digest_of(tensor):  # not written to meanwhile
            _add(seen.values, own, (held, value), MOST_VALUES)
        return value

    def find(self, tensor: Tensor, key: Hashable) -> Value | None:
        """The value of `tensor` if it is there, for a tensor known to be plain."""
        views = _SEEN.get(id(tensor.untyped_storage()))
        seen = None if views is None else views.get(_view(tensor))
        kept = None if seen is None else seen.values.get((id(self), key))
        if views is None or seen is None or kept is None:
            return None
        held, value = kept
        if seen.fits(tensor) and seen.still_holds(tensor, held):
            return cast(Value, value)
        views.pop(_view(tensor), None)
        return None

    def values(self) -> list[Value]:
        """All that are kept."""
        seen = [seen for views in [*_SEEN.values()] for seen in [*views.values()]]
        pairs = [pair for one in seen for pair in [*one.values.items()]]
        return [kept[1] for (owner, _), kept in pairs if owner == id(self) and kept is not None]


def _seen(tensor: Tensor) -> _Seen:
    """What is known of `tensor` as it is now; nothing, if it is not what it was."""
    views = _SEEN.setdefault(id(tensor.untyped_storage()), {})
    seen = views.get(_view(tensor))
    if seen is None or not seen.fits(tensor):
        seen = _Seen(tensor)
        _add(views, _view(tensor), seen, MOST_VIEWS)
    return seen


def _add(to: dict[Any, Any], key: Hashable, value: Any, most: int) -> None:
    """Set an entry; one too many is exchanged for the oldest."""
    if len(to) >= most and key not in to:
        to.pop(next(iter([*to])), None)
    to[key] = value


def is_plain(*tensors: Tensor) -> bool:
    """Whether real tensors hold numbers and nothing listens to what is done with them."""
    return not listened() and all(type(t) in PLAIN and not (t.is_meta or t.is_neg()) for t in tensors)


def listened() -> bool:
    """Whether something listens to what is done with tensors: a mode, a tracer, a transform."""
    if _get_current_dispatch_mode() is not None or torch._C._functorch.peek_interpreter_stack() is not None:
        return True
    return torch._C._get_tracing_state() is not None or torch._C._dispatch_tls_is_dispatch_key_included(_EARLY)


def digest_of(tensor: Tensor) -> bytes:
    """What a tensor in host memory holds, from its first number to its last, in a few bytes; small ones as they are."""
    at = extent(tensor)
    if len(at) <= SMALL:
        return ctypes.string_at(at.start, len(at))
    from lrw_kernels.cpu.digest import digest, place  # these load a kernel

    return digest(place(at.start, len(at)), torch.get_num_threads())


def held_by(tensor: Tensor) -> bytes | None:
    """The digest of a tensor, for `Mark.still_holds`; None for one that nobody asks for it."""
    return digest_of(tensor) if tensor.is_cpu and rate(tensor) > 0 else None


def reach(tensor: Tensor) -> int:
    """Numbers from the first to the last that a tensor refers to."""
    if tensor.is_contiguous():
        return tensor.numel()
    return 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


def extent(tensor: Tensor) -> range:
    """The addresses of the bytes from a tensor's first number to its last; none where that is not in host memory, or
    its memory was given back."""
    if not tensor.is_cpu or tensor.layout is not torch.strided:
        return range(0)
    size, first = reach(tensor) * tensor.element_size(), tensor.storage_offset() * tensor.element_size()
    if first + size > tensor.untyped_storage().nbytes():
        return range(0)
    return range(tensor.data_ptr(), tensor.data_ptr() + size)


def overlap(one: range, other: range) -> bool:
    """Whether two ranges of addresses have some in common."""
    return max(one.start, other.start) < min(one.stop, other.stop)


def inside(one: range, other: range) -> bool:
    """Whether the addresses of `one`, of which there are some, are all in `other`."""
    return other.start <= one.start < one.stop <= other.stop


def version(tensor: Tensor) -> Hashable:
    """Where and how a tensor lies, and the writes torch has counted."""
    return form(tensor), writes(tensor)


def form(tensor: Tensor) -> Hashable:
    """Where and how a tensor lies."""
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype


def writes(tensor: Tensor) -> int | None:
    """The writes torch has counted; of tensors made in inference mode it counts none."""
    return None if tensor.is_inference() else tensor._version


def _view(tensor: Tensor) -> Hashable:
    return tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype


def _place(tensor: Tensor) -> Place:
    return id(tensor.untyped_storage()), _view(tensor)


def rate(tensor: Tensor) -> int:
    """At which use of it a tensor is looked at."""
    trusted = _TRUSTED.get(_place(tensor)) if _TRUSTED and not tensor.is_inference() else None
    if trusted is None:
        return 1
    return trusted[1] if tensor.is_cpu else 0  # a GPU's memory is not looked at
