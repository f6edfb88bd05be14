"""Finding and replacing layers inside a network, and the sizes they see."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from copy import deepcopy
from functools import partial
from types import CellType, FunctionType, MethodType
from typing import Any, TypeVar

import torch
from torch import Tensor, fx, nn

from lrw import checks
from lrw.nn import WinogradLayer
from lrw_kernels.untrusted import in_a_line
from lrw_kernels.winograd.tile import Triple

Kind = TypeVar("Kind", bound=nn.Module)
Kinds = type[nn.Module] | tuple[type[nn.Module], ...]
FUNCTIONS = (FunctionType, MethodType, partial)


def named_layers(net: nn.Module, kind: type[Kind]) -> dict[str, Kind]:
    """Name -> module for every `kind` in `net`, in the order of `named_modules`; a shared module appears once."""
    return {name: module for name, module in net.named_modules() if isinstance(module, kind)}


def winograd_layers(net: nn.Module) -> dict[str, WinogradLayer]:
    """Name -> Winograd layer of any kind. Raises ValueError where there is none."""
    checks.check_network(net)
    layers = named_layers(net, WinogradLayer)
    if not layers:
        raise ValueError("net: holds no Winograd layer; convert it with lrw.to_winograd first")
    return layers


def copied(net: nn.Module) -> nn.Module:
    """A copy of `net` that shares nothing with it.

    Tensors that hooks renew before each pass (torch.nn.utils.prune, weight_norm) are copied as they are now, and
    functions set on an instance, such as a wrapped `forward`, call the copy's parts. Raises ValueError for what cannot
    be copied.
    """
    modules = list(net.modules())
    renewed = [t for m in modules for t in vars(m).values() if isinstance(t, Tensor) and not t.is_leaf]
    memo: dict[int, Any] = {id(t): t.detach().clone() for t in renewed}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch's own, of what torch.export gives
            copy = deepcopy(net, memo)
    except Exception as error:  # of any class: networks hold what they like
        reason = str(error).partition("\n")[0]
        raise ValueError(f"net: cannot be copied ({reason}); accepted is one that copy.deepcopy takes") from error
    for module in modules:
        set_here = {name: value for name, value in vars(module).items() if isinstance(value, FUNCTIONS)}
        if id(module) in memo:  # a class may copy itself its own way
            memo[id(module)].training = module.training
            vars(memo[id(module)]).update({name: _rebound(function, memo) for name, function in set_here.items()})
    return copy


def _rebound(value: Any, memo: dict[int, Any]) -> Any:
    """A function or method that holds copies where `value` holds what `memo` has copies of.

    deepcopy returns functions as they are: a copied module's own would call the original.
    """
    if isinstance(value, MethodType):
        return MethodType(_rebound(value.__func__, memo), _rebound(value.__self__, memo))
    if isinstance(value, partial):
        args, kwargs = (
            (_rebound(a, memo) for a in value.args),
            {k: _rebound(a, memo) for k, a in value.keywords.items()},
        )
        return partial(_rebound(value.func, memo), *args, **kwargs)
    if id(value) in memo or not isinstance(value, FunctionType):
        return memo.get(id(value), value)
    cells = value.__closure__ or ()
    closure = tuple(CellType() for _ in cells)
    new = memo[id(value)] = FunctionType(value.__code__, value.__globals__, value.__name__, None, closure)
    for cell, held in zip(closure, cells, strict=True):
        with suppress(ValueError):  # nothing in it yet
            cell.cell_contents = _rebound(held.cell_contents, memo)
    new.__defaults__ = tuple(_rebound(default, memo) for default in value.__defaults__ or ()) or None
    new.__kwdefaults__ = value.__kwdefaults__
    vars(new).update(vars(value))
    return new


def tied(net: nn.Module) -> dict[str, str]:
    """Why modules of `net` must keep their parameters: name -> a parameter that another module has too.

    One is the same where it is the same tensor or lies in the same memory. A module that is used twice is one module.
    """
    spans: list[tuple[int, int, str, str]] = []
    for name, module in net.named_modules():
        for key, p in module._parameters.items():
            if p is not None:
                first = p.data_ptr() or id(p)  # on meta there is no memory
                spans.append((first, first + max(1, p.numel() * p.element_size()), name, key))
    spans.sort(key=lambda span: span[:2])
    reasons: dict[str, str] = {}
    reaching = None  # of the spans so far, the one that ends last
    for span in spans:
        if reaching is not None and span[0] < reaching[1]:
            for (*_, name, key), (*_, other, at) in ((span, reaching), (reaching, span)):
                shared = ".".join(filter(None, (other, at)))
                reasons.setdefault(name, f"its {key} is {shared!r} too; layers that share it would come apart")
        reaching = span if reaching is None or span[1] > reaching[1] else reaching
    return reasons


def check_replaceable(net: nn.Module, layers: Mapping[str, nn.Module]) -> None:
    """As `checks.check_replaceable`, and none of `layers` may share a parameter with another module of `net`."""
    checks.check_replaceable(layers)
    for name, reason in tied(net).items():
        if name in layers:
            raise ValueError(f"net: the layer {name!r} cannot be replaced: {reason}; give each a parameter of its own")


def replace_layers(net: nn.Module, new: dict[str, nn.Module]) -> nn.Module:
    """Put `new` modules at their names, wherever the old ones are used; returns the network (or what replaces it)."""
    if "" in new:
        return new[""]
    swaps = {id(net.get_submodule(name)): module for name, module in new.items()}
    for parent in list(net.modules()):
        for key, child in parent._modules.items():  # named_children() would pass over a module's second name
            if id(child) in swaps:
                parent._modules[key] = swaps[id(child)]
    return net


def input_sizes(net: nn.Module, example_input: Tensor, kind: type[nn.Module] = WinogradLayer) -> dict[str, Triple]:
    """Name -> spatial input size [3] of each layer of `kind` for one forward pass of `example_input`."""
    sizes: dict[str, Triple] = {}

    def note(name: str, module: nn.Module, x: Tensor, y: Tensor) -> None:
        d, h, w = x.shape[-3:]  # of one sample without a batch too
        sizes[name] = (d, h, w)

    look_at_calls(net, example_input, kind, note)
    return sizes


def look_at_calls(
    net: nn.Module, example_input: Tensor, kind: Kinds, look: Callable[[str, Any, Tensor, Tensor], None]
) -> None:
    """Call `look(name, layer, what it got, what it gave)` each time a layer of `kind` is called in one pass of
    `example_input` in eval mode.

    Raises ValueError for an input that the network does not take.
    """
    handles = []
    for name, layer in net.named_modules():
        if not isinstance(layer, kind):
            continue

        def hook(module: nn.Module, args: Any, kwargs: dict[str, Any], y: Tensor, name: str = name) -> None:
            look(name, module, next(iter((*args, *kwargs.values()))), y)

        handles.append(layer.register_forward_hook(hook, with_kwargs=True))
    try:
        with torch.no_grad(), evaluating(net):
            net(example_input)
    except (AttributeError, LookupError, NotImplementedError, RuntimeError, TypeError) as error:
        if "allocate memory" in str(error):
            raise
        raise ValueError(
            f"example_input: the network does not take it ({type(error).__name__}: {in_a_line(error)})"
        ) from error
    finally:
        for handle in handles:
            handle.remove()


class evaluating:
    """`with evaluating(net):` sets eval mode and puts every module's own mode back."""

    def __init__(self, net: nn.Module) -> None:
        self._modes = list(_modes(net))
        self._net = net

    def __enter__(self) -> nn.Module:
        set_single_mode(self._net)
        return self._net.eval() if any(module.training for module, _ in self._modes) else self._net

    def __exit__(self, *_: object) -> None:
        for module, mode in self._modes:
            module.training = mode


def set_single_mode(net: nn.Module) -> None:
    """Set what torch.export gave in `net` to eval mode: it computes the same in all modes, and refuses `eval`."""
    for exported in [m for m in net.modules() if isinstance(m, fx.GraphModule) and "eval" in vars(m)]:
        for module in exported.modules():
            module.training = False


def _modes(net: nn.Module) -> Iterator[tuple[nn.Module, bool]]:
    for module in net.modules():
        yield module, module.training
