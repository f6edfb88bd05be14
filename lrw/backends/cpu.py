"""The vector kernels behind the backend interface: checks layouts, packs weights, hands over addresses.

Activations are taken as they come where their channels are contiguous (channels_last_3d); channels first are
transposed on the way in and out, by kernels too. Half precision is widened and rounded inside the transforms.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor
from torch.nn.functional import pad

from lrw.backends.epilogue import PLAIN, Epilogue
from lrw.backends.layouts import channels_first, channels_last, empty, has_last
from lrw.geometry import Geometry
from lrw.unchanged import Derived
from lrw_kernels.codegen.arena import ARENA, Memory
from lrw_kernels.codegen.machine import Machine, host, supported
from lrw_kernels.cpu import layout
from lrw_kernels.cpu.step import Strides
from lrw_kernels.cpu.winograd import problem
from lrw_kernels.cpu.winograd.problem import Problem
from lrw_kernels.program.layer import Form, dense, runner
from lrw_kernels.winograd import Block
from lrw_kernels.winograd.tile import Triple

PANELS: Derived[Memory] = Derived()
KINDS = {torch.float64: "float64", torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}


def refusal(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why not: tensors outside host memory, or a processor without fused multiply-adds; None where it computes."""
    if device.type != "cpu":
        return f"computes on the cpu only, the tensors are on {device.type}"
    return None if supported() else "needs a processor with AVX2 and FMA, AVX-512 or NEON"


def forward(
    x: Tensor, u: Tensor, geometry: Geometry, epilogue: Epilogue = PLAIN, *, machine: Machine | None = None
) -> Tensor:
    """Y [N, D', H', W', Cout] of x [N, D, H, W, Cin] and U [K, Cin, Cout]."""
    p = _problem(x, _sizes(x), u.shape[1], u.shape[2], geometry, machine)
    y = empty((x.shape[0], *p.output_size, p.cout), x.dtype)
    if y.numel() > 0:
        last = channels_last(x, p.machine, p.threads)  # by name: an address keeps no tensor alive
        residual = (
            None if epilogue.residual is None else channels_last(epilogue.residual, p.machine, p.threads).contiguous()
        )
        bias = None if epilogue.bias is None else _padded_bias(epilogue.bias, p)
        with _panels(u, p) as panels:
            _run(p, problem.FORWARD, last, y, panels, bias=bias, residual=residual, relu=epilogue.relu)
    return _like(y, x, p)


def prepare(x: Tensor, u: Tensor, geometry: Geometry, epilogue: Epilogue = PLAIN) -> "PreparedForward | None":
    """The forward pass of these forms where activations are taken and given as they lie (channels last, the residual as
    the output) and U's panels are kept; else None."""
    fitting = all(t is None or t.is_contiguous() for t in (x, epilogue.residual)) and x.numel() > 0
    p = _problem(x, _sizes(x), u.shape[1], u.shape[2], geometry, None)
    panels = _kept_panels(u, p, adjoint=False) if fitting else None
    if panels is None:
        return None
    bias, residual = epilogue.bias is not None, epilogue.residual is not None
    return PreparedForward(p, panels, x.dtype, bias=bias, residual=residual, relu=epilogue.relu)


class PreparedForward:
    """The forward pass for channels-last activations of one form and one U: nothing is left to find but addresses."""

    def __init__(
        self, p: Problem, panels: Memory, dtype: torch.dtype, *, bias: bool, residual: bool, relu: bool
    ) -> None:
        self._problem, self._panels, self._dtype = p, panels, dtype
        self._shape = (p.batch, p.cout, *p.output_size)
        d, h, w = p.output_size
        self._strides = (d * h * w * p.cout, 1, h * w * p.cout, w * p.cout, p.cout)
        self._runner = runner(p, dense(p, problem.FORWARD, bias=bias, residual=residual, relu=relu))

    def __call__(self, x: Tensor, u: Tensor, bias: Tensor | None, residual: Tensor | None) -> Tensor:
        """Y [N, Cout, D', H', W'] of x [N, Cin, D, H, W], both channels last; u is in panels already."""
        y = empty(self._shape, self._dtype, self._strides)
        padded = None if bias is None else _padded_bias(bias, self._problem)  # by name: addresses keep nothing
        addresses = x.data_ptr(), y.data_ptr(), _address(padded), _address(residual)
        self._runner.run(*addresses, self._panels.address)
        return y


def forward_blocks(
    x: Tensor, weights: Sequence[Tensor], bias: Tensor | None, geometry: Geometry, blocks: tuple[Block, ...]
) -> Tensor:
    """Y [N, D', H', W', Cout] of blocks of output channels, weights [K_i, Cin, channels_i], in one pass over x."""
    cin, cout = weights[0].shape[1], sum(channels for channels, _ in blocks)
    p = _problem(x, _sizes(x), cin, cout, geometry, None, blocks)
    y = empty((x.shape[0], *p.output_size, p.cout), x.dtype)
    last = channels_last(x, p.machine, p.threads)
    padded = None if bias is None else _padded_bias(bias, p, more=p.machine.lanes(p.element))
    parts = zip(weights, p.parts, strict=True)
    with ExitStack() as stack:
        panels = [stack.enter_context(_panels(u, q)) if q.kept else 0 for u, q in parts]
        _run(p, problem.FORWARD, last, y, *panels, bias=padded)
    return _like(y, x, p)


def input_grad(
    dy: Tensor, u: Tensor, geometry: Geometry, input_size: Triple, *, machine: Machine | None = None
) -> Tensor:
    """dX [N, D, H, W, Cin] of dY [N, D', H', W', Cout]; of half precision in float32, because overlaps are added up."""
    dy = dy.to(_wide(dy.dtype))
    p = _problem(dy, input_size, u.shape[1], u.shape[2], geometry, machine)
    dx = empty((dy.shape[0], *input_size, p.cin), dy.dtype).zero_()
    if dy.numel() > 0:
        last = channels_last(dy, p.machine, p.threads)  # by name: an address keeps no tensor alive
        with _panels(u, p, adjoint=True) as panels:
            _run(p, problem.INPUT_GRAD, last, dx, panels)
    return _like(dx, dy, p)


def weight_grad(x: Tensor, dy: Tensor, geometry: Geometry, *, machine: Machine | None = None) -> Tensor:
    """The gradient dU [K, Cin, Cout] of x [N, D, H, W, Cin] and dY [N, D', H', W', Cout]."""
    p = _problem(x, _sizes(x), x.shape[4], dy.shape[4], geometry, machine)
    lanes = p.machine.lanes(p.element)
    rows, columns = (-(-count // lanes) * lanes for count in (p.cin, p.cout))
    du = empty((p.columns, rows, columns), _wide(x.dtype))
    if x.shape[0] == 0:
        du.zero_()
    else:
        last, d_last = (channels_last(t, p.machine, p.threads) for t in (x, dy))  # by name: addresses keep nothing
        _run(p, problem.WEIGHT_GRAD, last, d_last, du.data_ptr())
    return du[:, : p.cin, : p.cout]


def _problem(
    activations: Tensor, input_size: Triple, cin: int, cout: int, geometry: Geometry, machine: Machine | None,
    blocks: tuple[Block, ...] | None = None,
) -> Problem:  # fmt: skip
    return problem.of(
        str(geometry.tile),
        geometry.padding,
        geometry.kept,
        geometry.fixed and geometry.kept is not None,
        activations.shape[0],
        input_size,
        (cin, cout),
        KINDS[activations.dtype],
        machine or host(),
        torch.get_num_threads(),
        blocks,
    )


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _element(p: Problem) -> torch.dtype:
    return torch.float64 if p.element == "float64" else torch.float32


def _sizes(x: Tensor) -> Triple:
    return int(x.shape[1]), int(x.shape[2]), int(x.shape[3])


@contextmanager
def _panels(u: Tensor, p: Problem, *, adjoint: bool = False) -> Iterator[int]:
    """The address of U, or of U^T, in panels: those kept with U, or some that are borrowed for the block."""
    kept = _kept_panels(u, p, adjoint=adjoint)
    if kept is not None:
        yield kept.address
        return
    size = p.adjoint_weight_bytes if adjoint else p.weight_bytes
    with ARENA.borrow(size) as panels:
        if (p.cin if adjoint else p.cout) % p.machine.lanes(p.element):
            panels.clear(size)
        yield _pack(u, p, panels, adjoint=adjoint).address


def _kept_panels(u: Tensor, p: Problem, *, adjoint: bool) -> Memory | None:
    size = p.adjoint_weight_bytes if adjoint else p.weight_bytes
    return PANELS.get(u, (p.machine, p.element, adjoint), lambda: _pack(u, p, Memory.of(size), adjoint=adjoint))


def _pack(u: Tensor, p: Problem, panels: Memory, *, adjoint: bool) -> Memory:
    wide, shape = u.detach().to(_element(p)).contiguous(), (u.shape[0], u.shape[1], u.shape[2])
    layout.pack(wide.data_ptr(), panels.address, shape, p.machine, p.element, transposed=adjoint, workers=p.threads)
    return panels


def _like(y: Tensor, x: Tensor, p: Problem) -> Tensor:
    """y [N, D, H, W, C], in memory with channels first where those of x came so."""
    came_first = x.permute(0, 4, 1, 2, 3).is_contiguous()  # as one channel does that also lies last
    if (has_last(x) and not came_first) or KINDS[x.dtype] != p.element or y.numel() == 0:
        return y
    return channels_first(y, p.machine, p.threads).permute(0, 2, 3, 4, 1)


def _padded_bias(bias: Tensor, p: Problem, more: int = 0) -> Tensor:
    """A bias [Cout] padded with zeros to whole vectors, and by `more` numbers, in the arithmetic's dtype."""
    missing = -p.cout % p.machine.lanes(p.element) + more
    if missing == 0 and bias.dtype == _element(p) and bias.is_contiguous():
        return bias
    return pad(bias.detach().to(_element(p)), (0, missing))


def _run(
    p: Problem, way: str, first: Tensor, second: Tensor, *weights: int,
    bias: Tensor | None = None, residual: Tensor | None = None, relu: bool = False,
) -> None:  # fmt: skip
    """Compute on activations [N, D, H, W, C], with a bias in whole vectors and a residual that lies as `second`."""
    strides = _byte_strides(first), _byte_strides(second)
    form = Form(way, *strides, bias=bias is not None, residual=residual is not None, relu=relu)
    runner(p, form).run(first.data_ptr(), second.data_ptr(), _address(bias), _address(residual), *weights)


def _byte_strides(x: Tensor) -> Strides:
    n, d, h, w, _ = (stride * x.element_size() for stride in x.stride())
    # torch lets the stride of a single pixel be anything.
    return n, d, h, x.shape[4] * x.element_size() if x.shape[3] == 1 else w


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()
