"""Direct convolution by cuDNN in its faster form: both memory layouts, and for TF32 with and without it."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.gpu.clock import Call, Times
from bench.gpu.problem import Problem, settings

LAYOUTS = {"NDHWC": torch.channels_last_3d, "NCDHW": torch.contiguous_format}
ONES, NONE = [1, 1, 1], [0, 0, 0]
Time = Callable[[Sequence[Call]], Times | None]
conv3d: Callable[[Tensor, Tensor], Tensor] = partial(F.conv3d, padding=1)


class Fastest(NamedTuple):
    """A form's name (layout, and "ieee" where it did better without TF32), and its times."""

    form: str
    times: Times | None


def fastest(problem: Problem, kind: str, time: Time) -> Fastest:
    """Over the forms that `kind` has at the problem's precision, as `time` has it. Raises RuntimeError for none."""
    found, refused = list[Fastest](), RuntimeError("cuDNN was not asked")
    for form in [*LAYOUTS, *(f"{layout} ieee" for layout in LAYOUTS if problem.precision == "tf32")]:
        try:
            found.append(Fastest(form, timed(problem, kind, form, time)))
        except RuntimeError as error:  # cuDNN has no such form, or no room for it
            refused = error
    if not found:
        raise refused
    return min(found, key=lambda one: one.times.median if one.times else 0.0)


def timed(problem: Problem, kind: str, form: str, time: Time) -> Times | None:
    """The times of one form."""
    layout, _, other = form.partition(" ")
    with settings("ieee" if other else problem.precision, kind):
        return time(_calls(problem, kind, layout))


def _calls(problem: Problem, kind: str, layout: str) -> list[Call]:
    """One for each set of inputs: F.conv3d, one of its gradients, or for "training" all three."""
    w = problem.weight.to(problem.dtype).contiguous(memory_format=LAYOUTS[layout])
    xs = [_outer(x, layout) for x in problem.inputs]
    if kind == "forward":
        return [partial(conv3d, x, w) for x in xs]
    pairs = zip(xs, (_outer(dy, layout) for dy in problem.gradients), strict=True)
    if kind == "training":
        return [trained(conv3d, x, w.clone(), dy) for x, dy in pairs]
    mask, run = [kind == "input_grad", kind == "weight_grad", False], torch.ops.aten.convolution_backward.default
    return [partial(run, dy, x, w, None, ONES, ONES, ONES, False, NONE, 1, mask) for x, dy in pairs]


def step(problem: Problem, layout: str, function: Callable[[Tensor, Tensor], Tensor], w: Tensor) -> Callable[[], Call]:
    """A training step of the layer by a function of x and weights, on tensors made when it is asked for."""

    def make() -> Call:
        shapes = ((problem.layer.batch, channels, *problem.layer.size) for channels in problem.layer.shape[:2])
        x, dy = (torch.randn(shape, device=problem.device, dtype=problem.dtype) for shape in shapes)
        x, dy = (t.contiguous(memory_format=LAYOUTS[layout]) for t in (x, dy))
        return trained(function, x, w.clone(), dy)

    return make


def trained(
    function: Callable[[Tensor, Tensor], Tensor], x: Tensor, w: Tensor, dy: Tensor
) -> Callable[[], tuple[Tensor, ...]]:
    """A call of a function of x and weights that gives its result and both of its gradients."""
    x, w = x.detach().requires_grad_(), w.detach().requires_grad_()

    def call() -> tuple[Tensor, ...]:
        y = function(x, w)
        return y.detach(), *torch.autograd.grad(y, (x, w), dy)

    return call


def _outer(x: Tensor, layout: str) -> Tensor:
    """[N, D, H, W, C] as torch has it, [N, C, D, H, W] in the layout's order of memory."""
    return x.permute(0, 4, 1, 2, 3).contiguous(memory_format=LAYOUTS[layout])
