"""A Winograd layer or one of its gradients as a program of its own, bound to this process: what an eager call runs.

Each form of a call has a program, which is kept with its problem: the strides of the activations, and what follows.
"""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from lrw_kernels.codegen.arena import ARENA
from lrw_kernels.codegen.machine import BYTES
from lrw_kernels.codegen.references import Section, symbolic
from lrw_kernels.cpu.step import Epilogue, Size, Steps, Strides, View, dense_strides
from lrw_kernels.cpu.winograd import conv
from lrw_kernels.cpu.winograd.plan import Plan
from lrw_kernels.cpu.winograd.problem import INPUT_GRAD, WEIGHT_GRAD, Problem
from lrw_kernels.network.operators import Pointwise
from lrw_kernels.program.bind import Bound, placed
from lrw_kernels.program.collect import Collector

MOST_FORMS = 64  # of a problem's calls: strides may come in any number
_FIRST, _SECOND, _BIAS, _RESIDUAL, _WEIGHTS = range(5)  # the buffers of the caller, in their order
MOST_BLOCKS = Section.BUFFER - Section.OUTSIDE - _WEIGHTS


class Form(NamedTuple):
    """What is the same in all calls that one program serves: forward or a gradient, the strides in bytes of the two
    activations, whether there is a bias (padded to whole vectors), a residual with the strides of the second, and ReLU;
    a plan, where it is not to be that of formulas."""

    way: str
    first: Strides
    second: Strides
    bias: bool = False
    residual: bool = False
    relu: bool = False
    plan: Plan | None = None


def dense(p: Problem, way: str, *, bias: bool = False, residual: bool = False, relu: bool = False) -> Form:
    """The form of calls whose activations are one piece of memory each."""
    first, second = (dense_strides(size, BYTES[p.kind]) for size in _sizes(p, way))
    return Form(way, first, second, bias, residual, relu)


class Runner:
    """The steps of one operator as a program for so many threads: any number of Python threads may run it, each run has
    an image of its own. `path` is the plan's, if it has one."""

    def __init__(self, made: Steps, threads: int) -> None:
        to = Collector(threads)
        to.add(0, made)
        self.path: str = made.details.get("path", "")
        self.program = to.program("layer", ())
        self._weights, self._threads = placed(self.program), threads
        self._idle: deque[Bound] = deque()

    def run(self, first: int, second: int, bias: int, residual: int, *weights: int) -> None:
        """Compute on the caller's buffers at these addresses; 0 stands for a bias or residual that is not there."""
        try:
            bound = self._idle.pop()
        except IndexError:  # all are at work
            bound = Bound(self.program, self._weights)
        memory = ARENA.take(self.program.buffer_bytes)
        try:
            bound.run(memory.address, (first, second, bias, residual, *weights), self._threads)
        finally:
            ARENA.give_back(memory)
        self._idle.append(bound)


def runner(p: Problem, form: Form) -> Runner:
    """The program of a problem in a form, one object for all calls while it is kept."""
    found: Runner | None = p.passes.get(form)
    if found is None:
        if len(p.passes) >= MOST_FORMS:
            p.passes.pop(next(iter([*p.passes]), None), None)
        found = p.passes.setdefault(form, Runner(steps(p, form), p.threads))
    return found


def steps(p: Problem, form: Form) -> Steps:
    """The steps of a call of problem `p` in `form`; its buffers are those of the caller, at symbolic addresses.

    Raises ValueError for more blocks of output channels than there are sections for.
    """
    sizes = _sizes(p, form.way)
    first, second = View(_outside(_FIRST), form.first, sizes[0]), View(_outside(_SECOND), form.second, sizes[1])
    if form.way == INPUT_GRAD:
        return conv.input_grad(p, first, second, _outside(_WEIGHTS), form.plan)
    if form.way == WEIGHT_GRAD:
        return conv.weight_grad(p, first, second, _outside(_WEIGHTS), form.plan)
    if len(p.parts) > MOST_BLOCKS:
        raise ValueError(f"blocks: {len(p.parts)}; accepted are up to {MOST_BLOCKS}")
    bias = _outside(_BIAS) if form.bias else None
    residual = View(_outside(_RESIDUAL), form.second, sizes[1]) if form.residual else None
    weights: Sequence[int] = [_outside(_WEIGHTS + i) for i in range(len(p.parts))]
    return conv.forward(
        p, first, second, weights, Epilogue(bias, residual, Pointwise("relu") if form.relu else None), form.plan
    )


def _sizes(p: Problem, way: str) -> tuple[Size, Size]:
    """The sizes [N, D, H, W, C] of the two activations: read and written, or for the weights' gradient both read."""
    inner: Size = (p.batch, *p.input_size, p.cin)
    outer: Size = (p.batch, *p.output_size, p.cout)
    return (outer, inner) if way == INPUT_GRAD else (inner, outer)


def _outside(buffer: int) -> int:
    return symbolic(Section.OUTSIDE + buffer)
