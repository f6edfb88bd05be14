"""Argument checks at the door: one clear message that names the argument, its value and what is accepted."""

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lrw_kernels.winograd.tile import MAX_PADDING

# By name: importing the classes imports all of torch.distributed.
WRAPPERS = ("DistributedDataParallel", "DataParallel", "FSDPModule", "FullyShardedDataParallel")
MOST_TEMPERATURE = 1e6  # beyond which all classes are alike
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def check_activation(x: Tensor, channels: int | None, name: str = "input") -> None:
    """x must be a dense floating [N, C, D, H, W] tensor, with `channels` channels where they are given."""
    if not isinstance(x, Tensor):
        raise ValueError(f"{name}: a {type(x).__name__}; accepted is a Tensor [N, C, D, H, W]")
    if x.dim() != 5:
        raise ValueError(f"{name}: shape {tuple(x.shape)}; accepted is [N, C, D, H, W]")
    if x.layout != torch.strided:
        raise ValueError(f"{name}: layout {x.layout}; accepted are dense (strided) tensors")
    if x.dtype not in DTYPES:
        raise ValueError(f"{name}: dtype {x.dtype}; accepted are {_names(DTYPES)}")
    if channels == 0 or x.shape[1] == 0:
        raise ValueError(f"{name}: no channels; accepted is one at least")
    if channels is not None and x.shape[1] != channels:
        raise ValueError(f"{name}: {x.shape[1]} channels; the weights take {channels}")


def check_tensor(x: object, name: str) -> None:
    """x must be a Tensor."""
    if not isinstance(x, Tensor):
        raise ValueError(f"{name}: a {type(x).__name__}; accepted is a Tensor")


def check_choices(relu: object, backend: object) -> None:
    """`relu` must be True or False, `backend` a text: which texts name one is for the table of backends to say."""
    if not isinstance(relu, bool):
        raise ValueError(f"relu: a {type(relu).__name__}; accepted is True or False")
    if not isinstance(backend, str):
        raise ValueError(f"backend: a {type(backend).__name__}; accepted is a text")


def check_weights(u: Tensor, columns: int, name: str) -> None:
    """u must be [K, Cin, Cout] with K = `columns`, and some channels."""
    check_tensor(u, name)
    if u.dim() != 3 or u.shape[0] != columns:
        raise ValueError(f"{name}: shape {tuple(u.shape)}; accepted is [{columns}, Cin, Cout]")
    if 0 in u.shape:
        raise ValueError(
            f"{name}: no channels, {u.shape[1]} in and {u.shape[2]} out; accepted is at least one each way"
        )


def check_memory(**tensors: Tensor | None) -> None:
    """Tensors must have the memory their sizes say: sharded training and offloading take it away between passes."""
    for name, t in tensors.items():
        if t is not None and t.numel() > 0:
            reach = t.numel()
            if not t.is_contiguous():
                reach = 1 + sum((size - 1) * stride for size, stride in zip(t.shape, t.stride(), strict=True))
            if t.untyped_storage().nbytes() < (t.storage_offset() + reach) * t.element_size():
                raise ValueError(f"{name}: its memory was given back; accepted are tensors that hold their numbers")


def check_pair(x: Tensor, weight: Tensor, name: str, dtypes: Sequence[torch.dtype]) -> None:
    """`weight` must be on x's device and of one of `dtypes`."""
    if weight.device != x.device:
        raise ValueError(f"{name}: on {weight.device}, the input is on {x.device}; accepted is one device for both")
    if weight.layout != torch.strided:
        raise ValueError(f"{name}: layout {weight.layout}; accepted are dense (strided) tensors")
    if weight.dtype not in dtypes:
        raise ValueError(f"{name}: dtype {weight.dtype}, the input has {x.dtype}; accepted is one dtype for both")


def check_bias(x: Tensor, bias: Tensor | None, channels: int, dtypes: Sequence[torch.dtype]) -> None:
    """bias must be [Cout], on x's device and of one of `dtypes`."""
    if bias is None:
        return
    check_tensor(bias, "bias")
    if tuple(bias.shape) != (channels,):
        raise ValueError(f"bias: shape {tuple(bias.shape)}; accepted is [{channels}]")
    check_pair(x, bias, "bias", dtypes)


def check_residual(x: Tensor, residual: Tensor | None, shape: Sequence[int], dtypes: Sequence[torch.dtype]) -> None:
    """residual must have the output's shape, x's device and one of `dtypes`."""
    if residual is None:
        return
    check_tensor(residual, "residual")
    if tuple(residual.shape) != tuple(shape):
        raise ValueError(f"residual: shape {tuple(residual.shape)}; accepted is the output's, {list(shape)}")
    check_pair(x, residual, "residual", dtypes)


def check_weight(weight: Tensor) -> None:
    """weight must be a floating [Cout, Cin, rd, rh, rw] tensor."""
    if not isinstance(weight, Tensor) or weight.dim() != 5:
        raise ValueError(f"weight: shape {tuple(getattr(weight, 'shape', ()))}; accepted is [Cout, Cin, rd, rh, rw]")
    if weight.layout != torch.strided:
        raise ValueError(f"weight: layout {weight.layout}; accepted are dense (strided) tensors")
    if 0 in weight.shape:
        raise ValueError(f"weight: shape {tuple(weight.shape)}; accepted is at least one channel and tap on every axis")
    if weight.dtype not in DTYPES:
        raise ValueError(f"weight: dtype {weight.dtype}; accepted are {_names(DTYPES)}")


def check_output_size(output_size: Sequence[int], input_size: Sequence[int]) -> None:
    """Every axis must have at least one output."""
    if min(output_size) < 1:
        raise ValueError(
            f"input: size {tuple(input_size)} is smaller than the filter; give more padding or a larger input"
        )


def check_unit(value: int | Sequence[int], name: str) -> None:
    """stride, dilation and groups must be 1: Winograd transforms take no others."""
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    if not values or any(isinstance(v, float) or v != 1 for v in values):
        raise ValueError(f"{name}: {value}; accepted is 1, Winograd convolution takes no other (use F.conv3d)")


def check_finite(module: nn.Module) -> None:
    """All parameters must be there and finite; names the first that is not."""
    check_network(module)
    for name, parameter in module.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise ValueError(f"{name}: weights hold NaN or infinity; accepted are finite weights")


def check_looked_at(calibration: object, **how: object) -> None:
    """Raises ValueError naming what says `how` samples are looked at where there is no `calibration`."""
    for name, given in how.items():
        if given is not None and calibration is None:
            raise ValueError(f"{name}: says how samples are looked at; accepted is with calibration=")


def check_share(value: float, name: str) -> None:
    """A share such as sparsity must lie in [0, 1)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ValueError(f"{name}: {value!r}; accepted is a share from 0 up to, not including, 1")


def check_module(net: object, name: str = "net") -> nn.Module:
    """`net`. Raises ValueError, starting with `name`, for anything but a torch network."""
    if isinstance(net, Mapping) and net and all(isinstance(value, Tensor) for value in net.values()):
        raise ValueError(f"{name}: tensors by name; accepted is the network (nn.Module) that loads them")
    if not isinstance(net, nn.Module):
        raise ValueError(f"{name}: a {type(net).__name__}; accepted is a torch network (nn.Module)")
    return net


def check_network(net: object, name: str = "net") -> None:
    """The same, and for a network of which parameters have no numbers yet."""
    for place, parameter in check_module(net, name).named_parameters():
        if is_lazy(parameter):
            raise ValueError(f"{place}: has no size yet (a lazy layer); accepted is a network that has seen an input")
        if parameter.is_meta:
            raise ValueError(f"{place}: has no numbers (on the meta device); accepted is a network with its weights")


def check_rtol(rtol: object) -> float:
    """`rtol` as a float. Raises ValueError for anything but a positive number."""
    if isinstance(rtol, bool) or not isinstance(rtol, int | float) or not rtol > 0:
        raise ValueError(f"rtol: {rtol!r}; accepted are positive numbers")
    return float(rtol)


def check_count(value: int, name: str, most: int | None = None) -> None:
    """A whole number from 1 to `most`."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < 1 or (most is not None and value > most):
        raise ValueError(f"{name}: {value!r}; accepted are whole numbers from 1" + (f" to {most}" if most else ""))


def check_volume_size(value: Sequence[int], name: str) -> tuple[int, int, int]:
    """(D, H, W), three whole numbers from 1; returned as a tuple."""
    sides = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else ()
    whole = all(isinstance(side, int) and not isinstance(side, bool) and side >= 1 for side in sides)
    if len(sides) != 3 or not whole:
        raise ValueError(f"{name}: {value!r}; accepted are three whole numbers from 1, (D, H, W)")
    return sides[0], sides[1], sides[2]


def _names(dtypes: Sequence[torch.dtype]) -> str:
    return ", ".join(str(d).removeprefix("torch.") for d in dtypes)


def check_labels(labels: Tensor, logits: Tensor) -> None:
    """Labels must be whole numbers, of the shape of the logits without their classes."""
    expected = [*logits.shape[:1], *logits.shape[2:]] if logits.dim() > 1 else []
    if labels.dtype != torch.int64 or list(labels.shape) != expected:
        raise ValueError(f"labels: {labels.dtype} {list(labels.shape)}; accepted is torch.int64 {expected}")


def check_numbers(t: Tensor, name: str) -> None:
    """t must be dense, and hold numbers."""
    if t.layout != torch.strided or t.is_meta:
        what = "on the meta device" if t.is_meta else f"of layout {t.layout}"
        raise ValueError(f"{name}: {what}; accepted are dense tensors with their numbers")


def check_distillation(weight: float, temperature: float, label_smoothing: float = 0.0) -> None:
    """`weight` must be a share of the loss, `temperature` above 0, `label_smoothing` a share."""
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing: {label_smoothing!r}; accepted is a share from 0 to 1")
    if not 0 <= weight <= 1:
        raise ValueError(f"weight: {weight!r}; accepted is a share of the loss from 0 to 1")
    if not 0 < temperature <= MOST_TEMPERATURE:
        raise ValueError(f"temperature: {temperature!r}; accepted is a number above 0, up to {MOST_TEMPERATURE:g}")


def check_unwrapped(net: nn.Module) -> None:
    """`net` must be a network that is not wrapped for distributed training: wrappers know the parameters they met."""
    check_network(net)
    for module in net.modules():
        wrapper = next((kind.__name__ for kind in type(module).__mro__ if kind.__name__ in WRAPPERS), None)
        if wrapper is not None:
            raise ValueError(f"net: is wrapped in {wrapper}, which has taken its parameters; change layers before that")


METHODS = ("forward", "_conv_forward", "weights", "stored")
TENSORS = ("weight", "bias", "mask", "kept", "Gr", "Gc")
HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
_UNDO = "prune.remove, remove_weight_norm or remove_parametrizations make it a parameter again"


def computed(layer: nn.Module) -> str | None:
    """Which of a layer's tensors is computed from others whenever it is called; None where all are its own.

    Parametrizations put a property in a tensor's place; torch.nn.utils.prune, its older weight_norm and spectral_norm,
    and weight drop a plain tensor that hooks renew before each pass, and that is out of date between two.
    """
    lists = [child for child in layer.children() if isinstance(child, nn.ParameterList)]  # a grouped layer's weights
    for part in (layer, *lists):
        plain = [name for name, value in vars(part).items() if isinstance(value, Tensor)]
        names = [*getattr(part, "parametrizations", ()), *(n for n in plain if part is not layer or n in TENSORS)]
        if names:
            return f"its {names[0]} is computed from other tensors; {_UNDO}"
    return None


def misfit(layer: nn.Module) -> str | None:
    """Which of a layer's tensors has another size than its attributes say; None where they agree."""
    weight, bias = layer._parameters.get("weight"), layer._parameters.get("bias")
    inputs: Any = layer.in_channels
    outputs: Any = layer.out_channels
    expected: tuple[int, ...]
    if weight is not None:
        if isinstance(layer, nn.Conv3d):
            expected = (outputs, inputs // layer.groups, *layer.kernel_size)
        else:  # as many rows as the mask or the kept positions
            rows = [len(b) for name, b in layer._buffers.items() if name in TENSORS and b is not None]
            expected = (*(rows or [len(weight)])[:1], inputs, outputs)
        if tuple(weight.shape) != expected:
            return f"its weight has shape {list(weight.shape)}, its attributes say {list(expected)}"
    if bias is not None and tuple(bias.shape) != (outputs,):
        return f"its bias has shape {list(bias.shape)}, there are {outputs} output channels"
    return None


def own_code(layer: nn.Module) -> str | None:
    """What a layer does besides its class's own work, and a new layer in its place would not; None where nothing."""
    own = next((name for name in METHODS if name in vars(layer)), None)
    if own is not None:
        return f"it has a {own} of its own, set on the instance, which a new layer would lose"
    if any(getattr(layer, hooks) for hooks in HOOKS):
        return "it has hooks, which a new layer would lose"
    return None


def check_tensors(layers: Mapping[str, nn.Module]) -> None:
    """Winograd layers must hold their weights as tensors of their own, of the sizes they say; names the first other."""
    for name, layer in layers.items():
        reason = computed(layer) or misfit(layer)
        if reason is not None:
            raise ValueError(f"net: the layer {name!r} cannot be taken as it is: {reason}")


def check_replaceable(layers: Mapping[str, nn.Module]) -> None:
    """As `check_tensors`, and nothing may hang on the layers that others in their place would lose."""
    check_tensors(layers)
    for name, layer in layers.items():
        reason = own_code(layer)
        if reason is not None:
            raise ValueError(f"net: the layer {name!r} cannot be replaced: {reason}")


def fitted(conv: nn.Conv3d) -> nn.Conv3d:
    """`conv`; where filters were cut out by hand, a stand-in with its tensors and their sizes, by which it computes."""
    weight = conv._parameters.get("weight")
    if weight is None or is_lazy(weight) or weight.dim() != 5 or misfit(conv) is None:
        return conv
    same = copy(conv)
    outputs, inputs, *taps = weight.shape
    same.in_channels, same.out_channels, same.kernel_size = inputs * conv.groups, outputs, tuple(taps)  # type: ignore[assignment]
    return same


def unsuited(conv: nn.Conv3d) -> str | None:
    """Why `conv` cannot become a Winograd layer (or would gain nothing); None where it can."""
    if any(s != 1 for s in conv.stride):
        return f"stride {conv.stride}; accepted is 1"
    if any(d != 1 for d in conv.dilation):
        return f"dilation {conv.dilation}; accepted is 1"
    if conv.groups != 1:
        return f"groups {conv.groups}; accepted is 1"
    if conv.padding_mode != "zeros":
        return f"padding_mode {conv.padding_mode!r}; accepted is 'zeros'"
    methods = ("forward", "_conv_forward", "__call__")
    if any(getattr(type(conv), method) is not getattr(nn.Conv3d, method) for method in methods):
        return f"{type(conv).__name__} computes something of its own"
    reason = computed(conv) or _unusable(conv) or misfit(conv) or own_code(conv)
    if reason is not None:
        return reason
    if max(conv.kernel_size) == 1:
        return "kernel_size 1: a plain product already, nothing to save"
    if max(conv.kernel_size) > 7:
        return f"kernel_size {conv.kernel_size}; accepted are 1 to 7 taps per axis"
    if not isinstance(conv.padding, str) and max(conv.padding) > MAX_PADDING:
        return f"padding {conv.padding}; accepted are 0 to {MAX_PADDING} on each axis"
    if conv.padding == "same" and any(r % 2 == 0 for r in conv.kernel_size):
        return f"padding 'same' is uneven for kernel_size {conv.kernel_size}"
    return None


def _unusable(conv: nn.Conv3d) -> str | None:
    weight = conv._parameters.get("weight")
    if type(weight) is not nn.Parameter:
        return f"its weight is a {type(weight).__name__}; accepted is a Parameter of its own"
    if weight._backward_hooks:
        return "its weight has hooks, which a new one would lose"
    try:
        check_weight(weight)
    except ValueError as error:
        return f"its {error}"
    return None
