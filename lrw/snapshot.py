"""A network as it was: its modules, what is set on them, and what its tensors held; whether it still is that."""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, compress
from operator import is_
from typing import Any, NamedTuple
from weakref import ref

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from lrw.marks import Marks
from lrw.unchanged import extent, inside

# What a pass in eval mode does not depend on, or what is asked for at each pass.
ELSEWHERE = ("training", "_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs",
              "_forward_pre_hooks_with_kwargs", "_forward_hooks_always_called", "_backward_hooks",
              "_backward_pre_hooks", "_is_full_backward_hook", "_non_persistent_buffers_set", "_state_dict_hooks",
              "_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks")  # fmt: skip
_SIMPLE = (int, float, complex, str, bytes, torch.dtype, torch.device, torch.layout, torch.memory_format)
_DEEPEST = 4  # containers in one another


_Values = tuple[nn.Module | None, type, tuple[str, ...], list[tuple[str, Any]]]
"""A module (None: the network), its class, the attributes that do not count, and those that do."""


class Change(NamedTuple):
    """An attribute that is another now: of which of the network's modules, its name there, what people call it, and the
    tensors it held; None where it holds or held something else."""

    module: int
    attribute: str
    name: str
    tensors: Sequence[Tensor] | None


class Snapshot:
    """`net` as it is when this is made, without the attributes of the whole that are called `private` and those `apart`
    (the module's place among all, the name).

    What is set on modules counts by value where it is a number, text, tensor or a container of such, else by identity:
    a change inside an object of another kind is not seen.
    """

    def __init__(
        self, net: nn.Module, private: tuple[str, ...], apart: frozenset[tuple[int, str]] = frozenset()
    ) -> None:
        self._net = ref(net)  # not held: it may hold this
        tensors: list[Tensor] = []
        self._values: list[_Values] = []
        for i, module in enumerate(net.modules()):
            without = (*(private if module is net else ()), *(name for at, name in apart if at == i))
            own = None if module is net else module
            self._values.append((own, type(module), without, _values(module, without, tensors.append)))
        self.parameters = [*net.parameters()]
        self._marks, self._places = Marks(tensors), Marks(())
        self._objects = _Objects(net, self._values)

    def leave(self, memory: Sequence[range]) -> None:
        """From now on tensors in `memory`, ranges of addresses, may hold what they like, but must stay where they are.

        For memory that is read where it lies by whoever asks whether the network still fits.
        """
        left = [any(inside(extent(t), some) for some in memory) for t in self._marks.tensors]
        self._places, self._marks = self._marks.those(left), self._marks.those([not there for there in left])

    @property
    def inner(self) -> Sequence[nn.Module]:
        """The modules inside the network."""
        return self._objects.inner

    def fits(self, net: nn.Module) -> bool:
        """Whether `net` is the network of this snapshot, with the same modules, attributes and numbers in tensors."""
        return self.same(net) and self.holds()

    def same(self, net: nn.Module) -> bool:
        """Whether `net` is the network of this snapshot, with the same modules and attributes."""
        if self._net() is not net:
            return False
        if not self._objects.same(net):
            if any(True for _ in self.changed(net)):
                return False
            self._objects = _Objects(net, self._values)  # others that are equal
        return True

    def holds(self) -> bool:
        """Whether the network's tensors hold the same numbers."""
        return self._places.lie() and self._marks.hold()

    def changed(self, net: nn.Module) -> Iterator[Change]:
        """What is set differently now on modules of `net`, which this was made of; not what tensors hold."""
        for i, (own, kind, without, values) in enumerate(self._values):
            module = net if own is None else own
            now = _values(module, without, _ignored)
            if type(module) is not kind:
                yield Change(i, "", f"{kind.__name__}.__class__", None)
            elif now != values:
                before, after = dict(values), dict(now)
                for name in [name for name in {**before, **after} if before.get(name) != after.get(name)]:
                    held_before = _tensors(before.get(name))
                    results = None if _tensors(after.get(name)) is None else held_before
                    yield Change(i, name, f"{kind.__name__}.{name}", results)


class _Objects:
    """What is set on modules, and what is in containers there, by identity: where all are the same objects nothing has
    changed, which is seen at the speed of C."""

    def __init__(self, net: nn.Module, values: "Sequence[_Values]") -> None:
        self.inner = [net if own is None else own for own, *_ in values][1:]  # the first is the network, not held
        self._kinds = [kind for _, kind, *_ in values]
        attributes = self._attributes(net)
        self._counts, self._names = [*map(len, attributes)], [*chain.from_iterable(attributes)]
        self._watched = [
            name not in ELSEWHERE and name not in without
            for at, (_, _, without, _) in zip(attributes, values, strict=True)
            for name in at
        ]
        self._set = [*compress(_values_of(attributes), self._watched)]
        self._containers: list[Any] = []
        for value in self._set:
            self._add_containers(value, _DEEPEST)
        self._sizes = [*map(len, self._containers)]
        self._inside = [*_contents(self._containers)]

    def same(self, net: nn.Module) -> bool:
        """Whether they still are the same."""
        if [type(net), *map(type, self.inner)] != self._kinds:
            return False
        attributes = self._attributes(net)
        if [*map(len, attributes)] != self._counts or [*chain.from_iterable(attributes)] != self._names:
            return False
        if not all(map(is_, compress(_values_of(attributes), self._watched), self._set)):
            return False
        return [*map(len, self._containers)] == self._sizes and all(map(is_, _contents(self._containers), self._inside))

    def _attributes(self, net: nn.Module) -> list[dict[str, Any]]:
        return [vars(net), *map(vars, self.inner)]

    def _add_containers(self, value: Any, deep: int) -> None:
        if deep and isinstance(value, dict | list | tuple):
            self._containers.append(value)
            for inner in value.values() if isinstance(value, dict) else value:
                self._add_containers(inner, deep - 1)


def _values_of(dictionaries: Sequence[dict[str, Any]]) -> Iterator[Any]:
    return chain.from_iterable(map(dict.values, dictionaries))


def _contents(containers: Sequence[Any]) -> Iterator[Any]:
    """Everything in `containers`: of dictionaries keys, and values."""
    return chain(chain.from_iterable(containers), _values_of([c for c in containers if isinstance(c, dict)]))


class _Same:
    """Holds an object by identity: equal only where another one holds the same."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.value is self.value

    __hash__ = None  # type: ignore[assignment]


def _ignored(tensor: Tensor) -> None:
    pass


def _values(module: nn.Module, private: tuple[str, ...], found: Callable[[Tensor], None]) -> list[tuple[str, Any]]:
    return [
        (name, _frozen(value, found, _DEEPEST))
        for name, value in vars(module).items()
        if name not in ELSEWHERE and name not in private
    ]


def _frozen(value: Any, found: Callable[[Tensor], None], deep: int) -> Any:
    """`value` as something that will compare unequal once it is another; tensors in it go to `found`."""
    if value is None or isinstance(value, _SIMPLE):
        return type(value), value
    if isinstance(value, Tensor):
        if not isinstance(value, FakeTensor):  # left there by a pass that was followed
            found(value)
    elif deep and isinstance(value, dict):
        return type(value), [(_frozen(k, found, 0), _frozen(v, found, deep - 1)) for k, v in value.items()]
    elif deep and isinstance(value, list | tuple):
        return type(value), [_frozen(v, found, deep - 1) for v in value]
    return _Same(value)


def _tensors(frozen: Any) -> list[Tensor] | None:
    """The tensors in what `_frozen` gave for a tensor, None or a list or tuple of such; None for anything else."""
    if isinstance(frozen, _Same):
        return [frozen.value] if isinstance(frozen.value, Tensor) else None
    kind, value = frozen if frozen is not None else (type(None), None)
    if value is None:
        return []
    if not isinstance(value, list) or issubclass(kind, dict):
        return None
    parts = [_tensors(part) for part in value]
    return None if None in parts else [tensor for part in parts for tensor in part or ()]
