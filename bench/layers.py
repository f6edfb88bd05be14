"""Every layer and network that is measured, once; benches pick by name."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from lrw_kernels.winograd import Tile

if TYPE_CHECKING:
    from torch import nn

Triple = tuple[int, int, int]
PADDING = (1, 1, 1)
SHARES = (1.0, 0.5, 0.25)
"""Shares of the columns that are measured."""


@dataclass(frozen=True)
class Layer:
    """A 3x3x3 convolution, stride 1, padding 1: size is (D, H, W) of input and output."""

    name: str
    cin: int
    cout: int
    size: Triple
    batch: int = 1

    @property
    def shape(self) -> tuple[int, ...]:
        """(Cin, Cout, D, H, W): all that a library sees of it."""
        return (self.cin, self.cout, *self.size)

    @property
    def macs(self) -> int:
        """Multiply-adds of direct convolution for one sample, those with the zeros of the padding included."""
        return 27 * self.cin * self.cout * prod(self.size)

    @property
    def extent(self) -> str:
        """The size as text."""
        return "x".join(map(str, self.size))

    @property
    def title(self) -> str:
        """Name and shape, for people."""
        return f"{self.name}: {self.cin}->{self.cout} at {self.extent}"


@dataclass(frozen=True)
class Whole(Layer):
    """All of C3D, pools and linear layers too, from a clip of that size to scores: cout is the number of classes."""

    @property
    def macs(self) -> int:
        """Those of its convolutions, so that it compares with libraries that were given only these."""
        return sum(layer.macs for layer in LAYERS if layer.name.startswith("c3d-"))


LAYERS: tuple[Layer, ...] = (
    Layer("ref-16", 16, 16, (8, 56, 56)),
    Layer("ref-32", 32, 32, (8, 16, 16)),
    Layer("ref-64", 64, 64, (8, 28, 28)),
    Layer("ref-128", 128, 128, (4, 14, 14)),
    Layer("c3d-1a", 3, 64, (16, 112, 112)),
    Layer("c3d-2a", 64, 128, (16, 56, 56)),
    Layer("c3d-3a", 128, 256, (8, 28, 28)),
    Layer("c3d-3b", 256, 256, (8, 28, 28)),
    Layer("c3d-4a", 256, 512, (4, 14, 14)),
    Layer("c3d-4b", 512, 512, (4, 14, 14)),
    Layer("c3d-5a", 512, 512, (2, 7, 7)),
    Layer("c3d-5b", 512, 512, (2, 7, 7)),
    Whole("whole-c3d", 3, 101, (16, 112, 112)),
    Layer("r3d18-layer1", 64, 64, (16, 56, 56)),
    Layer("r3d18-layer2", 128, 128, (8, 28, 28)),
    Layer("r3d18-layer3", 256, 256, (4, 14, 14)),
    Layer("r3d18-layer4", 512, 512, (2, 7, 7)),
    Layer("unet-dec0", 32, 32, (64, 64, 64)),
    Layer("unet-dec1", 128, 128, (32, 32, 32)),
    Layer("medmnist-layer1", 64, 64, (28, 28, 28)),
    Layer("medmnist-layer3", 256, 256, (7, 7, 7)),
)


def picked(names: str, batch: int = 1) -> tuple[Layer, ...]:
    """The layers of these names, separated by spaces, on batches of that many samples."""
    by_name = {layer.name: layer for layer in LAYERS}
    return tuple(replace(by_name[name], batch=batch) for name in names.split())


CPU = picked(
    "c3d-2a c3d-3a c3d-3b c3d-4a c3d-4b c3d-5a r3d18-layer1 r3d18-layer2 unet-dec0 unet-dec1 medmnist-layer1 "
    "medmnist-layer3"
)
ARM = picked(
    "ref-16 ref-32 ref-64 ref-128 c3d-1a c3d-2a c3d-3a c3d-3b c3d-4a c3d-4b c3d-5a c3d-5b whole-c3d"
)  # whole networks for ours alone
GPU = picked("c3d-2a c3d-3b c3d-4b r3d18-layer1 r3d18-layer2 r3d18-layer3 r3d18-layer4 unet-dec0 unet-dec1", batch=16)


def select(texts: str, layers: Sequence[Layer]) -> list[Layer]:
    """Those of `layers` whose names begin with one of the comma-separated `texts`, in order.

    Raises ValueError for a text that no name begins with.
    """
    wanted = [text.strip() for text in texts.split(",")]
    for text in wanted:
        if not text or not any(layer.name.startswith(text) for layer in layers):
            raise ValueError(f"{text!r} begins no layer's name; there are {', '.join(layer.name for layer in layers)}")
    return [layer for layer in layers if layer.name.startswith(tuple(wanted))]


def kept(tile: Tile, share: float) -> tuple[int, ...]:
    """That share of a tile's positions, at random, the same in every run; all of them for a share of one."""
    chosen = np.random.default_rng(1).choice(tile.positions, max(1, round(share * tile.positions)), replace=False)
    return tuple(sorted(int(p) for p in chosen))


@dataclass(frozen=True)
class Network:
    """A network others use: how it is made, of which package, and the size of its input [N, C, D, H, W]."""

    name: str
    package: str
    make: Callable[[], "nn.Module"]
    shape: tuple[int, ...]


def _made(module: str, name: str, *sizes: Any, **options: Any) -> Any:
    if module.startswith("torchvision"):
        _tell_torchvision()
    return getattr(importlib.import_module(module), name)(*sizes, **options)


def _tell_torchvision() -> None:
    """torchvision's builds for CUDA need the names of two operators beside torch for CPUs."""
    import torch

    if not hasattr(torch.ops.torchvision, "nms"):
        library = torch.library.Library("torchvision", "FRAGMENT")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _libraries.append(library)


_libraries: list[Any] = []  # what they define goes with them
_SEGRESNET = {"init_filters": 16, "in_channels": 1, "out_channels": 2, "blocks_down": (1, 2, 2, 4),
              "blocks_up": (1, 1, 1)}  # fmt: skip
_DYNUNET = (3, 1, 2, [3] * 5, [1, 2, 2, 2, 2], [2] * 4)
_UNET = (3, 1, 2, (16, 32, 64, 128, 256), (2, 2, 2, 2))
_MEDMNIST = {"n_input_channels": 1, "conv1_t_size": 3, "conv1_t_stride": 1, "no_max_pool": True, "num_classes": 11}
_CLIP = (1, 3, 16, 112, 112)


def _video(name: str) -> Network:
    return Network(name, "torchvision", partial(_made, "torchvision.models.video", name), _CLIP)


def _monai(name: str, kind: str, side: int, *sizes: Any, **options: Any) -> Network:
    return Network(name, "monai", partial(_made, "monai.networks.nets", kind, *sizes, **options), (1, 1, *[side] * 3))


NETWORKS = (
    _video("r3d_18"),
    _video("r2plus1d_18"),
    _video("mc3_18"),
    Network("C3D", "lrw", partial(_made, "lrw.nets", "C3D", 3, 101, width=64), _CLIP),
    _monai("MedMNIST", "resnet18", 28, **_MEDMNIST),
    _monai("SegResNet", "SegResNet", 64, 3, **_SEGRESNET),
    _monai("DynUNet", "DynUNet", 64, *_DYNUNET),
    _monai("DynUNet96", "DynUNet", 96, *_DYNUNET),
    _monai("UNet", "UNet", 96, *_UNET, num_res_units=2),
    _monai("VNet", "VNet", 64),
    _monai("DenseNet121", "DenseNet121", 64, 3, 1, 2),
)
