"""Random small networks: layers that read any of the tensors before them, with weights that follow from a seed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from verify.unit.trace.nets import settled

CHANNELS = (3, 4, 8, 16)
MOST_CHANNELS, LARGEST = 32, 6  # of a tensor, along an axis that is to be enlarged

Draw = st.DrawFn
Reads = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class RandomNetwork:
    """A network in eval mode and what it is called with."""

    net: nn.Module
    args: tuple[Tensor, ...]

    def __repr__(self) -> str:
        return f"{self.net!r}\nof {[[*x.shape] for x in self.args]}"


class Layers(nn.Module):
    """Layers in order, each of which reads `reads` of the tensors before it, the inputs among them; `gives` come out, a
    single one without a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        self.reads: tuple[Reads, ...] = ()
        self.gives: Reads = ()

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        values = [*inputs]
        for layer, reads in zip(self.layers, self.reads, strict=True):
            values.append(layer(*(values[i] for i in reads)))
        come = tuple(values[i] for i in self.gives)
        return come if len(come) > 1 else come[0]

    def extra_repr(self) -> str:
        return f"reads={self.reads}, gives={self.gives}"


class Function(nn.Module):
    """One of FUNCTIONS as a layer."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, *x: Tensor) -> Tensor:
        return FUNCTIONS[self.name](*x)

    def extra_repr(self) -> str:
        return self.name


FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "add": lambda x, other: x + other,
    "multiply": lambda x, other: x * torch.sigmoid(other),
    "gate": lambda x: x * torch.sigmoid(x.mean((2, 3, 4), keepdim=True)),
    "halves": lambda x: torch.cat(x.chunk(2, 1)[::-1], 1),
    "slice": lambda x: x[:, :, : x.shape[2] // 2 + 1, 1:],
    "flip": lambda x: x.flip(4),
    "cat": lambda *x: torch.cat(x, 1),
    "cumsum": lambda x: x.cumsum(2),
    "roll": lambda x: x.roll((1, -1), (3, 1)),
    "topk": lambda x: x.topk(x.shape[1] // 2 + 1, 1)[0],
}


def convolution(draw: Draw, x: Tensor) -> nn.Module:
    kernel = draw(st.sampled_from([(3, 3, 3), (1, 3, 3), (1, 1, 1)]))
    around = zip(kernel, x.shape[2:], strict=True)
    padding = tuple(draw(st.sampled_from([k // 2, 0])) if size >= k else k // 2 for k, size in around)
    channels, cout = x.shape[1], draw(st.sampled_from(CHANNELS))
    groups = draw(st.sampled_from([1, 1, *(g for g in (2, channels) if channels % g == 0)]))
    cout = -(-cout // groups) * groups
    stride, bias = draw(st.sampled_from([1, 1, 2])), draw(st.booleans())
    return nn.Conv3d(channels, cout, kernel, stride, padding, groups=groups, bias=bias)


def norm(draw: Draw, x: Tensor) -> nn.Module:
    channels, affine = x.shape[1], draw(st.booleans())
    kinds: list[Callable[[], nn.Module]] = [lambda: nn.BatchNorm3d(channels, affine=affine)]
    if x[0, 0].numel() > 1:
        kinds.append(lambda: nn.InstanceNorm3d(channels, affine=affine))
    if x[0].numel() > 1:
        groups = draw(st.sampled_from([g for g in (1, 2, 4) if channels % g == 0 and x[0].numel() > g]))
        kinds.append(lambda: nn.GroupNorm(groups, channels, affine=affine))
    return draw(st.sampled_from(kinds))()


def activation(draw: Draw, x: Tensor) -> nn.Module:
    slopes = nn.PReLU(draw(st.sampled_from([1, x.shape[1]])))
    others = nn.Sigmoid(), nn.GELU(), nn.SiLU(), nn.ELU(), nn.Hardswish()
    return draw(st.sampled_from([nn.ReLU(), nn.LeakyReLU(0.1), slopes, *others]))


def pool(draw: Draw, x: Tensor) -> nn.Module:
    kernel = tuple(draw(st.sampled_from([1, 2])) if size > 1 else 1 for size in x.shape[2:])
    return draw(st.sampled_from([nn.MaxPool3d(kernel), nn.AvgPool3d(kernel), nn.MaxPool3d(3, 2, 1)]))


def enlarged(draw: Draw, x: Tensor) -> nn.Module:
    if max(x.shape[2:]) > LARGEST:
        return pool(draw, x)
    transposed = nn.ConvTranspose3d(x.shape[1], draw(st.sampled_from(CHANNELS)), 2, 2)
    return draw(
        st.sampled_from([nn.Upsample(scale_factor=2), nn.Upsample(scale_factor=2, mode="trilinear"), transposed])
    )


def places(draw: Draw, x: Tensor) -> nn.Module:
    pads = [nn.ConstantPad3d((0, 1, 1, 0, 1, 1), 0.5), nn.ZeroPad3d(1), nn.ReplicationPad3d(1)]
    functions = [Function(name) for name in ("gate", "halves", "flip", *["slice"] * (x.shape[3] > 1))]
    return draw(st.sampled_from([*pads, *functions])) if max(x.shape[2:]) <= LARGEST else pool(draw, x)


def torchs(draw: Draw, x: Tensor) -> nn.Module:
    return Function(draw(st.sampled_from(["cumsum", "roll", "topk"])))


def head(draw: Draw, x: Tensor) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(x.shape[1], 3))


LAYERS = (convolution, convolution, norm, activation, pool, enlarged, places, torchs)


@st.composite
def random_networks(draw: Draw) -> RandomNetwork:
    """One to eight layers behind a convolution, of one or two inputs and outputs."""
    torch.manual_seed(draw(st.integers(0, 9999)))
    size = draw(st.tuples(*[st.integers(2, 7)] * 3))
    batch = draw(st.sampled_from([1, 1, 2]))
    inputs = [torch.randn(batch, draw(st.sampled_from([1, 2, 3])), *size) for _ in range(draw(st.sampled_from([1, 2])))]
    net, values = Layers(), [*inputs]
    _append(net, values, settled(convolution(draw, inputs[0])), (0,))
    for _ in range(draw(st.integers(0, 7))):
        layer, reads = _layer(draw, values, len(inputs))
        _append(net, values, settled(layer), reads)
    come = [_dependent(net, len(inputs))[-1]]
    if draw(st.booleans()):
        _append(net, values, head(draw, values[come[0]]), (come[0],))
        come = [len(values) - 1]
    if draw(st.sampled_from([False, False, True])):
        come.append(draw(st.integers(len(inputs), len(values) - 1)))
    net.gives = tuple(come)
    return RandomNetwork(net.eval(), tuple(inputs))


def _layer(draw: Draw, values: Sequence[Tensor], inputs: int) -> tuple[nn.Module, Reads]:
    """A layer, and which of the values it reads: the latest, or one of the few before it; none writes to the inputs."""
    first = len(values) - 1 - draw(st.integers(0, min(2, len(values) - 1)))
    x = values[first]
    alike = [i for i, v in enumerate(values) if v.shape == x.shape]
    room = MOST_CHANNELS - x.shape[1]
    beside = [i for i, v in enumerate(values) if v.shape[2:] == x.shape[2:] and v.shape[1] <= room]
    which = draw(st.sampled_from([*LAYERS, "add", "multiply", "cat", "in place"]))
    if which == "in place":
        return nn.LeakyReLU(0.1, inplace=first >= inputs), (first,)
    if not isinstance(which, str):
        return which(draw, x), (first,)
    others = beside if which == "cat" else alike
    return (Function(which), (first, draw(st.sampled_from(others)))) if others else (nn.ReLU(), (first,))


def _append(net: Layers, values: list[Tensor], layer: nn.Module, reads: Reads) -> None:
    net.layers.append(layer)
    net.reads += (reads,)
    with torch.no_grad():
        values.append(layer(*(values[i] for i in reads)))


def _dependent(net: Layers, inputs: int) -> list[int]:
    """Values that a convolution is needed for."""
    found: list[int] = []
    for i, (layer, reads) in enumerate(zip(net.layers, net.reads, strict=True), start=inputs):
        if isinstance(layer, nn.Conv3d | nn.ConvTranspose3d) or any(j in found for j in reads):
            found.append(i)
    return found
