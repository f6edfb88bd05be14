"""Direct convolution by cuDNN in its faster form: both memory layouts, and for TF32 with and without it."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.on_gpu.clock import Call, Times
from bench.on_gpu.problem import Problem, settings
from lrw_kernels.triton.precision import Precision

LAYOUTS = {"NDHWC": torch.channels_last_3d, "NCDHW": torch.contiguous_format}
ONES, NONE = [1, 1, 1], [0, 0, 0]


class Fastest(NamedTuple):
    """A form's name (layout, and "ieee" where it did better without TF32), and its times."""

    form: str
    times: Times | None


def fastest(problem: Problem, kind: str, time: Callable[[Sequence[Call]], Times | None]) -> Fastest:
    """Over the forms that `kind` has at the problem's precision, as `time` has it. Raises RuntimeError for none."""
    found, refused = list[Fastest](), RuntimeError("cuDNN was not asked")
    for precision in ("tf32", "ieee") if problem.precision == "tf32" else (problem.precision,):
        for layout in LAYOUTS:
            form = layout if precision == problem.precision else f"{layout} {precision}"
            try:
                with settings(precision, kind):
                    found.append(Fastest(form, time(calls(problem, kind, layout))))
            except RuntimeError as error:  # cuDNN has no such form, or no room for it
                refused = error
    if not found:
        raise refused
    return min(found, key=lambda one: one.times.median if one.times else 0.0)


def again(problem: Problem, kind: str, form: str, time: Callable[[Sequence[Call]], Times | None]) -> Times | None:
    """The same, of one form known to be fastest."""
    layout, _, other = form.partition(" ")
    with settings("ieee" if other else problem.precision):
        return time(calls(problem, kind, layout))


def calls(problem: Problem, kind: str, layout: str) -> list[Call]:
    """One for each set of inputs: F.conv3d, one of its gradients, or for "training" all three."""
    w = problem.weight.to(problem.dtype).contiguous(memory_format=LAYOUTS[layout])
    xs = [_outer(x, layout) for x in problem.inputs]
    if kind == "forward":
        return [_forward(x, w) for x in xs]
    if kind == "training":
        return [trained(partial(F.conv3d, padding=1), x, w.clone(), _outer(dy, layout))
                for x, dy in zip(xs, problem.gradients, strict=True)]  # fmt: skip
    mask = [kind == "input_grad", kind == "weight_grad", False]
    return [_backward(_outer(dy, layout), x, w, mask) for x, dy in zip(xs, problem.gradients, strict=True)]


def step(problem: Problem, form: str) -> Callable[[], Call]:
    """A training step of the layer, in a form's layout, on tensors made when it is asked for."""
    layout = form.partition(" ")[0]

    def make() -> Call:
        d, h, w_ = problem.layer.size
        shape = (problem.layer.batch, problem.layer.cin, d, h, w_)
        x = torch.randn(shape, device=problem.device, dtype=problem.dtype).contiguous(memory_format=LAYOUTS[layout])
        w = problem.weight.to(problem.dtype).contiguous(memory_format=LAYOUTS[layout])
        dy = torch.randn((shape[0], problem.layer.cout, d, h, w_), device=problem.device, dtype=problem.dtype)
        dy = dy.contiguous(memory_format=LAYOUTS[layout])
        return trained(partial(F.conv3d, padding=1), x, w, dy)

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


def precisions(form: str, own: Precision) -> Precision:
    """Of a form by name."""
    return "ieee" if form.partition(" ")[2] else own


def _forward(x: Tensor, w: Tensor) -> Call:
    return lambda: F.conv3d(x, w, padding=1)


def _backward(dy: Tensor, x: Tensor, w: Tensor, mask: list[bool]) -> Call:
    run = torch.ops.aten.convolution_backward.default
    return lambda: run(dy, x, w, None, ONES, ONES, ONES, False, NONE, 1, mask)


def _outer(x: Tensor, layout: str) -> Tensor:
    """[N, D, H, W, C] as torch has it, [N, C, D, H, W] in the layout's order of memory."""
    return x.permute(0, 4, 1, 2, 3).contiguous(memory_format=LAYOUTS[layout])
