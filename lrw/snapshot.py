"""A network as it was: its modules, what is set on them, and what its tensors held; whether it still is that."""

from collections.abc import Callable
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn

from lrw.unchanged import Mark, held_by

# What a pass in eval mode does not depend on, or what is asked for at each pass.
_ELSEWHERE = ("training", "_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs",
              "_forward_pre_hooks_with_kwargs", "_forward_hooks_always_called", "_backward_hooks",
              "_backward_pre_hooks", "_is_full_backward_hook", "_non_persistent_buffers_set", "_state_dict_hooks",
              "_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks")  # fmt: skip
_SIMPLE = (int, float, complex, str, bytes, torch.dtype, torch.device, torch.layout, torch.memory_format)
_DEEPEST = 4  # containers in one another


class Snapshot:
    """`net` as it is when this is made, without the attributes of the whole that are called `private`.

    What is set on modules counts by value where it is a number, text, tensor or a container of such, else by identity:
    a change inside an object of another kind is not seen.
    """

    def __init__(self, net: nn.Module, private: tuple[str, ...]) -> None:
        self._net, self._private = ref(net), private  # not held: it may hold this
        tensors: list[Tensor] = []
        self._values = [
            (None if m is net else m, type(m), _values(m, private if m is net else (), tensors.append))
            for m in net.modules()
        ]
        self.tensors = tuple(tensors)
        self._marks = [(t, Mark(t), held_by(t)) for t in tensors]

    def fits(self, net: nn.Module) -> bool:
        """Whether `net` is the network of this snapshot, with the same modules, attributes and numbers in tensors."""
        if self._net() is not net or self.changed(net) is not None:
            return False
        return all(mark.fits(t) and mark.still_holds(t, held) for t, mark, held in self._marks)

    def changed(self, net: nn.Module) -> str | None:
        """What is set differently on a module of `net` now, which this was made of, by the names of class and
        attribute; None where nothing is, but for what tensors hold."""
        for held, kind, values in self._values:
            module = net if held is None else held
            now = _values(module, self._private if held is None else (), _ignored)
            if type(module) is not kind or now != values:
                names = [name for name, value in now if (name, value) not in values]
                return f"{kind.__name__}.{names[0] if names else '__class__'}"
        return None


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
        if name not in _ELSEWHERE and name not in private
    ]


def _frozen(value: Any, found: Callable[[Tensor], None], deep: int) -> Any:
    """`value` as something that will compare unequal once it is another; tensors in it go to `found`."""
    if value is None or isinstance(value, _SIMPLE):
        return type(value), value
    if isinstance(value, Tensor):
        found(value)
    elif deep and isinstance(value, dict):
        return type(value), [(_frozen(k, found, 0), _frozen(v, found, deep - 1)) for k, v in value.items()]
    elif deep and isinstance(value, list | tuple):
        return type(value), [_frozen(v, found, deep - 1) for v in value]
    return _Same(value)
