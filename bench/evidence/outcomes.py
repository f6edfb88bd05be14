"""What each network makes of each test sample, in one file: whoever doubts an interval can take it again."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

TRUTH = "truth"


def key(setting: str, task: str, method: str, seed: int, removed: float | str) -> str:
    """The name of a network's outcomes; those of method TRUTH are the labels that AUC needs."""
    return f"{setting}/{task}/{method}/{seed}/{removed}"


class Outcomes:
    """Tensors [n] by name: right or wrong as bits, others in half precision's range as float32."""

    def __init__(self, path: Path) -> None:
        """Raises OSError and safetensors' own error where the file is there and cannot be read."""
        self._path = path
        self._held: dict[str, Tensor] = load_file(path) if path.is_file() else {}

    def add(self, found: Mapping[str, Tensor]) -> None:
        """Keep these too; the file is replaced as a whole."""
        self._held.update({name: _packed(values) for name, values in found.items()})
        begun = self._path.with_suffix(".begun")
        save_file(self._held, begun)
        os.replace(begun, self._path)

    def __contains__(self, name: str) -> bool:
        return name in self._held

    def __getitem__(self, name: str) -> Tensor:
        """[n] float32. Raises KeyError."""
        held = self._held[name]
        return held if held.dtype != torch.uint8 else _unpacked(held)


def _packed(values: Tensor) -> Tensor:
    """As bits where there are only zeros and ones: uint8 [2 + n / 8 or one more], the first two say how many."""
    if not bool(((values == 0) | (values == 1)).all()):
        return values.float().contiguous()
    bits = torch.zeros(-(-len(values) // 8) * 8, dtype=torch.uint8)
    bits[: len(values)] = values
    powers = torch.tensor([1 << i for i in range(8)], dtype=torch.uint8)
    head = torch.tensor(divmod(len(values), 256), dtype=torch.uint8)
    return torch.cat([head, (bits.view(-1, 8) * powers).sum(1, dtype=torch.uint8)])


def _unpacked(held: Tensor) -> Tensor:
    high, low = held[:2].tolist()
    bits = (held[2:, None] >> torch.arange(8, dtype=torch.uint8)) & 1
    return bits.flatten()[: 256 * high + low].float()
