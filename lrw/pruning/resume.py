"""What a pruning that was stopped has done already: one file for each layer, whole or not there."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from lrw.files import whole
from lrw.header import digest
from lrw.nn import WinogradConv3d
from lrw.pruning.budget import Plan, Share
from lrw.pruning.compensation import Compensated, Errors
from lrw.state_dict import UNREADABLE, check_file, read_safetensors
from lrw_kernels.untrusted import parse_json
from lrw_kernels.winograd import Tile

_NAME = "layer-{place}.safetensors"
_PLAN = "plan.json"
_ENTRY = "lrw-prune"
_DAMAGED = "checkpoint: {path} is no file of lrw.prune, or damaged; without it the layer is pruned again"


@dataclass(frozen=True)
class Done:
    """Layers that were pruned before, in `folder`; `key` says of which network, samples and settings."""

    folder: Path
    key: str

    @staticmethod
    def of(folder: str | os.PathLike[str], said: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> "Done":
        """For work described by `said` on a network of `tensors`; makes the folder. Raises OSError where it cannot."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        return Done(Path(folder), digest(said, {name: tensor.detach().cpu() for name, tensor in tensors.items()}))

    def write(self, place: int, layer: Compensated) -> None:
        """Keep what became of the layer at `place`. Raises OSError naming the file where it cannot be written."""
        kept = layer.mask.flatten(1).any(1)
        tensors = {"mask": layer.mask.cpu().contiguous(), "u": layer.u[kept].cpu().contiguous()}
        said = {"key": self.key, "errors": asdict(layer.errors)}
        with whole(self._path(place)) as partial:
            save_file(tensors, partial, metadata={_ENTRY: json.dumps({**said, "digest": digest(said, tensors)})})

    def read(self, place: int, layer: WinogradConv3d) -> Compensated | None:
        """What became of it the last time, None where it was not reached. Raises ValueError naming the file for one of
        other work, or a damaged one."""
        path = self._path(place)
        if not path.exists():
            return None
        try:
            check_file(path)
            metadata, tensors = read_safetensors(path)
            said = parse_json(metadata.get(_ENTRY, "null"), _ENTRY)
            known = said.pop("digest")
            errors, same = Errors(**said["errors"]), said["key"] == self.key
            intact = digest(said, tensors) == known
        except (*UNREADABLE, OSError) as error:
            raise ValueError(_DAMAGED.format(path=path)) from error
        if not intact:
            raise ValueError(_DAMAGED.format(path=path))
        if not same:
            raise ValueError(f"checkpoint: {path} is of another network, other samples or settings; accepted is a new "
                             "folder, or the one of the same call")  # fmt: skip
        mask, rows = (tensors[name].clone().to(layer.weight.device) for name in ("mask", "u"))
        u = rows.new_zeros(layer.geometry.tile.positions, layer.in_channels, layer.out_channels)
        u[mask.flatten(1).any(1)] = rows
        return Compensated(mask, u, errors)

    def write_plan(self, plan: Plan) -> None:
        """Keep what each layer is to lose. Raises OSError naming the file where it cannot be written."""
        shares = {name: [str(share.tile), share.dropped] for name, share in plan.shares.items()}
        with whole(self.folder / _PLAN) as partial:
            partial.write_text(
                json.dumps({"key": self.key, "shares": shares, "ms": plan.ms, "layers_ms": plan.layers_ms})
            )

    def read_plan(self) -> Plan | None:
        """What each layer is to lose by the plan that was made for the same work, None where there is none."""
        try:
            said = parse_json((self.folder / _PLAN).read_text(), _PLAN)
            if said["key"] != self.key:
                return None
            shares = {name: Share(Tile.parse(tile), float(dropped)) for name, (tile, dropped) in said["shares"].items()}
            if said["ms"] is None:
                return Plan(shares)
            taken = {name: (float(before), float(after)) for name, (before, after) in said["layers_ms"].items()}
            return Plan(shares, float(said["ms"]), taken)
        except (OSError, *UNREADABLE):  # it is made again, and the layers say whether they are of it
            return None

    def _path(self, place: int) -> Path:
        return self.folder / _NAME.format(place=place)
