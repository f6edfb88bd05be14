"""Networks of torch.export: read from a file, with layers where their graphs have convolutions."""

from typing import Any

import torch
from torch import fx, nn
from torch.fx.operator_schemas import normalize_function

from lrw.trace.captured import silence
from lrw_kernels.untrusted import in_a_line

SUFFIX = ".pt2"
Arguments = tuple[tuple[Any, ...], dict[str, Any]]

_CONVOLUTIONS = (
    torch.ops.aten.conv3d.default,
    torch.ops.aten.conv3d.padding,
    torch.ops.aten.convolution.default,
)
_SETTINGS = ("stride", "padding", "dilation", "groups")


def read(path: str) -> tuple[nn.Module, Arguments | None]:
    """The network of a file of torch.export.save, `with_layers`, and the arguments it was exported with, if any.

    Raises ValueError naming the file where it is none, and OSError where it cannot be read.
    """
    with open(path, "rb"):
        pass  # torch has no class for a file that is not there
    try:
        with silence():
            program = torch.export.load(path)
            net, examples = program.module(), program.example_inputs
    except Exception as error:  # of many classes
        said = f"{type(error).__name__}: {in_a_line(error)}"
        raise ValueError(f"{path} is no file of torch.export.save this torch can read ({said})") from error
    if any(map(_trains, net.graph.nodes)):
        raise ValueError(f"{path} was exported in training mode; accepted is a network exported after net.eval()")
    with silence():
        return with_layers(net), examples


def with_layers(net: fx.GraphModule) -> fx.GraphModule:
    """`net`, what `torch.export.ExportedProgram.module` gives, with an nn.Conv3d under the name of its weights for each
    3D convolution that has weights of its own: what is done to layers of other networks can be done to it.

    It keeps the mode it was exported in: `train()` and `eval()`, which torch refuses there, change nothing in it.
    """
    graph = net.graph
    for target in _CONVOLUTIONS:
        for node in graph.find_nodes(op="call_function", target=target):
            _replace(net, node)
    for node in graph.find_nodes(op="get_attr"):
        layer = net.get_submodule(str(node.target).rpartition(".")[0])
        if isinstance(layer, nn.Conv3d) and not node.users:
            graph.erase_node(node)
    return fx.GraphModule(net, graph, "Exported")


def _trains(node: fx.Node) -> bool:
    """Whether it computes what is only computed in training: statistics of a batch, dropout."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    names = [argument.name for argument in node.target._schema.arguments]
    given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    return given.get("training", given.get("train")) is True


def _replace(net: fx.GraphModule, node: fx.Node) -> None:
    """A convolution's call by that of its layer, where there can be one."""
    called = normalize_function(node.target, node.args, node.kwargs, normalize_to_only_use_kwargs=True)  # type: ignore[arg-type]
    given: dict[str, Any] = {} if called is None else called.kwargs
    if given.get("transposed") or not isinstance(given.get("weight"), fx.Node):
        return
    name, dot, last = str(given["weight"].target).rpartition(".")
    if not dot or last != "weight":  # a parameter of the network itself, or one by another name
        return
    biases = {f"{name}.bias"} if given["bias"] is not None else set()
    settings = {key: given[key] if isinstance(given[key], int | str) else tuple(given[key]) for key in _SETTINGS}
    if given["weight"].op != "get_attr" or {getattr(given["bias"], "target", None)} - {None} != biases:
        return
    layer = _layer(net.get_submodule(name), bool(biases), settings)
    if layer is None:
        return
    net.set_submodule(name, layer)
    with net.graph.inserting_before(node):
        new = net.graph.call_module(name, (given["input"],))
    new.meta = dict(node.meta)
    node.replace_all_uses_with(new)
    net.graph.erase_node(node)


def _layer(holder: nn.Module, bias: bool, settings: dict[str, Any]) -> nn.Conv3d | None:
    """A layer with the parameters that `holder` holds and nothing else; None where it holds others, or is the layer of
    another call with other settings."""
    parameters = dict(holder.named_parameters(recurse=False))
    weight, held = parameters.get("weight"), {"weight", "bias"} if bias else {"weight"}
    others = set(parameters) != held or any(True for _ in holder.buffers()) or any(True for _ in holder.children())
    if others or weight is None or weight.ndim != 5:
        return None
    outputs, inputs, *kernel_size = weight.shape
    inputs *= settings["groups"]
    made = nn.Conv3d(inputs, outputs, tuple(kernel_size), bias=bias, device="meta", **settings)  # type: ignore[arg-type]
    if isinstance(holder, nn.Conv3d):
        same = all(getattr(holder, key) == getattr(made, key) for key in _SETTINGS)
        return holder if same else None
    made.weight, made.bias = weight, parameters.get("bias")
    return made
