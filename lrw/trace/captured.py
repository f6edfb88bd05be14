"""What is walked: a graph of torch's operators with its constants, and the one that torch.export makes of a network."""

import linecache
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from io import StringIO
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from lrw.layers import named_layers
from lrw.nn import WinogradLayer
from lrw.trace.functional import make_functional, name_dropout
from lrw.trace.turns import Turns

if TYPE_CHECKING:
    from torch.export import ExportedProgram

FOLLOWING = Turns()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=FOLLOWING.renew)


@dataclass(frozen=True, eq=False)
class Captured:
    """A graph of operators that change none of their inputs, each node's `meta["val"]` the form of what it gives.

    `constants` holds what nodes without an operator stand for (placeholders, attributes); the other placeholders are
    the inputs. `outputs` are those of the graph that count: nodes, or values that depend on none; `structure` says
    what the network makes of them (one tensor, tuples, dictionaries). `modules` by path, where the graph's nodes say
    which of them called the operator. `root` has the attributes the graph's nodes refer to. `writes`: the network
    would write to its inputs.
    """

    graph: fx.Graph
    constants: Mapping[fx.Node, Tensor | None]
    outputs: tuple[object, ...]
    modules: Mapping[str, nn.Module] = field(default_factory=dict)
    structure: pytree.TreeSpec | None = None
    root: nn.Module = field(default_factory=nn.Module)
    writes: bool = False

    @property
    def inputs(self) -> tuple[fx.Node, ...]:
        """The placeholders that are no constants, in order."""
        return tuple(node for node in self.graph.find_nodes(op="placeholder") if node not in self.constants)


def exported(net: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> Captured:
    """`net`, called with these arguments, as torch.export follows it: composite operators (linear, conv3d) whole.

    Raises ValueError for what torch.export refuses, and for a network that changes its buffers.
    """
    from torch.export import export  # takes a quarter of a second, which an import of lrw would have to wait for

    taken = pytree.tree_map_only(Tensor, lambda t: t.detach().clone(memory_format=torch.contiguous_format), args)
    named = pytree.tree_map_only(Tensor, lambda t: t.detach().clone(memory_format=torch.contiguous_format), kwargs)
    for layer in named_layers(net, WinogradLayer).values():
        layer.follow()  # a mask that was written to; while a graph is captured nobody looks
    with FOLLOWING, silence():
        try:
            program, graph = _functional(export(net, taken, named, strict=False))
        except Exception as error:  # of many classes, some private, or whatever the network raises
            reason = next((line for line in str(error).splitlines() if line.strip()), "no reason given")
            raise ValueError(f"net: torch.export cannot follow it: {type(error).__name__}: {reason.strip()}") from error
    return _captured(program, graph, net)


def _functional(program: "ExportedProgram") -> tuple["ExportedProgram", fx.Graph]:
    """`program`, and its graph without operators that write to what they read."""
    name_dropout(program.graph)
    program.graph_module.recompile()
    graph = _copied(program)
    if not make_functional(graph):
        program = program.run_decompositions({})
        graph = _copied(program)
    graph.eliminate_dead_code()
    return program, graph


def _copied(program: "ExportedProgram") -> fx.Graph:
    """The graph, of nodes of our own: torch holds those it followed for ever."""
    graph = fx.Graph()
    graph.output(graph.graph_copy(program.graph, {}))
    for node in graph.find_nodes(op="call_function", target=torch.ops.aten._assert_tensor_metadata.default):
        graph.erase_node(node)  # sizes and types are fixed
    return graph


def _captured(program: "ExportedProgram", graph: fx.Graph, net: nn.Module) -> Captured:
    from torch.export.graph_signature import InputKind, OutputKind

    signature = program.graph_signature
    for spec in signature.output_specs:
        if spec.kind is OutputKind.BUFFER_MUTATION:
            raise ValueError(f"net: changes its buffer {spec.target} when called; accepted is a function of its input")
    held: dict[Any, Any] = {**program.state_dict, **program.constants}
    given = zip(graph.find_nodes(op="placeholder"), signature.input_specs, strict=True)
    constants = {node: held.get(spec.target) for node, spec in given if spec.kind is not InputKind.USER_INPUT}
    (returned,) = graph.find_nodes(op="output")
    found = zip(returned.args[0], signature.output_specs, strict=True)
    outputs = tuple(value for value, spec in found if spec.kind is OutputKind.USER_OUTPUT)
    writes = any(spec.kind is OutputKind.USER_INPUT_MUTATION for spec in signature.output_specs)
    about = dict(net.named_modules()), program.call_spec.out_spec, program.graph_module, writes
    return Captured(graph, constants, outputs, *about)


@contextmanager
def without_sources() -> Iterator[None]:
    """A block of whose graphs torch.fx keeps no source. It keeps that of every graph it ever compiled, for tracebacks:
    some 0.4 MB for a network that is followed, which a process that takes new sizes all day would never get back."""
    kept = getattr(getattr(fx.graph_module, "_loader", None), "eval_cache", {})  # torch's own, by no public name
    before = set(kept)
    try:
        yield
    finally:
        for name in set(kept) - before:
            kept.pop(name, None)
            linecache.cache.pop(name, None)


@contextmanager
def silence() -> Iterator[None]:
    """A block in which torch says nothing of its own doings: no warnings, no lines of loggers, no graphs on stderr."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
