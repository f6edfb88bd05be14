"""Samples without labels, and what layers see and give while a network computes them.

Which tiles of a layer are looked at follows from a seed and from each sample's own bytes, not from the order of samples
or from how they are batched.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from hashlib import blake2b
from math import floor, prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lrw import checks
from lrw.geometry import Geometry
from lrw.layers import evaluating

Forward = Callable[[nn.Module, Any], Any]
FEWEST = 16  # tiles of a layer: which samples they come from is drawn, and with fewer it might be none
See = Callable[[str, int, int, Tensor, Tensor], None]  # name, call, batch, input, output
_ACCEPTED = (
    "accepted is a tensor, a tuple or list that starts with one, or a dictionary with one at 'image'; for others, "
    "forward= says how the network is called"
)


class _Enough(BaseException):
    """All layers that were to be seen have been: the rest of the pass is left out."""


@dataclass(frozen=True)
class Calibration:
    """Batches as the network takes them, and a mark for each sample of each, made of its bytes."""

    batches: tuple[Any, ...]
    marks: tuple[tuple[int, ...], ...]
    forward: Forward

    @staticmethod
    def of(batches: Iterable[Any] | Tensor, forward: Forward | None = None) -> "Calibration":
        """Hold `batches`: tensors [N, ...], tuples that start with one (what follows, labels, is left alone) or
        dictionaries with one at "image"; a tensor alone is one batch.

        forward(net, batch): how the network is called with one, by default with that tensor alone. Raises ValueError
        naming the batch for others, and for NaN and infinity.
        """
        if isinstance(batches, nn.Module) or not isinstance(batches, Iterable):
            raise ValueError(f"batches: a {type(batches).__name__}; accepted are batches one after the other")
        held = (batches,) if isinstance(batches, Tensor) else tuple(batches)
        if not held:
            raise ValueError("batches: holds none; accepted is one at least")
        parts = [[_image(batch)] if forward is None else _tensors(batch) for batch in held]
        for i, (batch, tensors) in enumerate(zip(held, parts, strict=True)):
            _check(tensors, batch, f"batches[{i}]")
        seen: Counter[int] = Counter()
        marks = tuple(tuple(_mark(*sample, seen=seen) for sample in zip(*of, strict=True)) for of in parts)
        if forward is None:
            return Calibration(tuple(tensors[0] for tensors in parts), marks, _called)
        return Calibration(held, marks, forward)

    @property
    def samples(self) -> int:
        """How many there are."""
        return sum(len(marks) for marks in self.marks)

    def first(self, samples: int = 8) -> "Calibration":
        """The first batch alone, and where the network takes a tensor only its first `samples`."""
        batch, marks = self.batches[0], self.marks[0]
        if isinstance(batch, Tensor):
            batch, marks = batch[:samples], marks[:samples]
        return replace(self, batches=(batch,), marks=(marks,))

    @torch.no_grad()
    def run(self, net: nn.Module) -> Iterable[Any]:
        """What `net` gives for each batch, in eval mode."""
        with evaluating(net):
            for batch in self.batches:
                yield self.forward(net, batch)

    @torch.no_grad()
    def watch(
        self,
        net: nn.Module,
        layers: Mapping[str, nn.Module],
        see: See,
        calls: Mapping[str, int] | None = None,
        *,
        batches: int | None = None,
    ) -> None:
        """Call `see(name, call, batch, input, output)` whenever one of `layers` has computed, in eval mode.

        calls: how often each is called in a pass; with it a pass ends with the last of them. batches: only the first.
        """
        counts = dict.fromkeys(layers, 0)
        at = 0

        def hook(name: str) -> Callable[..., None]:
            def seen(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], y: Tensor) -> None:
                see(name, counts[name], at, args[0] if args else kwargs["input"], y)
                counts[name] += 1
                if calls is not None and all(counts[n] >= calls[n] for n in layers):
                    raise _Enough

            return seen

        with ExitStack() as stack:
            stack.enter_context(evaluating(net))
            for name, layer in layers.items():
                handle = layer.register_forward_hook(hook(name), with_kwargs=True)
                stack.callback(handle.remove)
            for at, batch in enumerate(self.batches[:batches]):  # noqa: B007 (the hooks read it)
                counts.update(dict.fromkeys(layers, 0))
                with suppress(_Enough):
                    self.forward(net, batch)


def _called(net: nn.Module, image: Tensor) -> Any:
    """What `net` gives for `image`, where its parameters are and in what they are of."""
    own = next((t for t in (*net.parameters(), *net.buffers()) if t.is_floating_point()), image)
    return net(image.to(own.device, own.dtype if image.is_floating_point() else image.dtype))


@dataclass
class Site:
    """Where a layer is called: in which place among the first calls, how often in a pass, and on what sizes."""

    place: int
    calls: int = 0
    input_size: tuple[int, ...] = ()
    passes: float = 0.0  # volumes it is given for each sample


def survey(net: nn.Module, calibration: Calibration, layers: Mapping[str, nn.Module]) -> dict[str, Site]:
    """The `layers` that the first batch reaches, in the order in which it does."""
    sites: dict[str, Site] = {}

    def see(name: str, call: int, batch: int, x: Tensor, y: Tensor) -> None:
        checks.check_activation(x, None, f"batches[0]: the input of {name!r}")
        site = sites.setdefault(name, Site(len(sites)))
        site.calls += 1
        site.input_size = tuple(x.shape[2:])
        site.passes += len(x) / len(calibration.marks[0])

    calibration.watch(net, layers, see, batches=1)
    return sites


@dataclass(frozen=True)
class Draw:
    """Which tiles of a layer are looked at: `each` of a sample in each call, on average, as far as it has so many."""

    name: str
    geometry: Geometry
    each: float
    seed: int

    def chosen(self, marks: Sequence[int], call: int, items: int, output_size: Sequence[int]) -> Tensor:
        """Numbers [tiles] over items and grid, rising within a sample, for a batch of samples with these `marks`."""
        tiles = prod(self.geometry.tile.grid(output_size))
        samples = marks if items % len(marks) == 0 else [sum(marks)]
        span, each = items // len(samples) * tiles, self.each * len(marks) / len(samples)
        parts = []
        for i, mark in enumerate(samples):
            said = f"{self.seed} {self.name} {call} {mark}".encode()
            generator = torch.Generator().manual_seed(int.from_bytes(blake2b(said, digest_size=7).digest(), "little"))
            count = floor(each + float(torch.rand((), generator=generator, dtype=torch.float64)))
            parts.append(torch.randperm(span, generator=generator)[:count].sort().values + i * span)
        return torch.cat(parts)


def _image(batch: Any) -> Any:
    found = batch.get("image") if isinstance(batch, Mapping) else batch
    return found[0] if isinstance(found, list | tuple) and found else found


def _tensors(batch: Any) -> list[Any]:
    """The tensors in a batch that hold something of each sample."""
    found = [leaf for leaf in pytree.tree_leaves(batch) if isinstance(leaf, Tensor) and leaf.dim() > 0]
    return [tensor for tensor in found if len(tensor) == len(found[0])] or [None]


def _check(tensors: list[Any], batch: Any, name: str) -> None:
    """Raises ValueError where a batch holds no samples, or numbers that are not finite."""
    for found in tensors:
        if not isinstance(found, Tensor) or found.dim() == 0:
            raise ValueError(f"{name}: a {type(batch).__name__}; {_ACCEPTED}")
        checks.check_numbers(found, name)
        if len(found) == 0:
            raise ValueError(f"{name}: holds no sample; accepted is one at least")
        if found.is_floating_point() and not bool(torch.isfinite(found).all()):
            raise ValueError(f"{name}: holds NaN or infinity; accepted are finite numbers")


def _mark(*tensors: Tensor, seen: Counter[int]) -> int:
    """A number made of a sample's bytes, and of how many like it were `seen`."""
    digest = blake2b(digest_size=7)
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    mark = int.from_bytes(digest.digest(), "little")
    seen[mark] += 1
    return mark + seen[mark] - 1
