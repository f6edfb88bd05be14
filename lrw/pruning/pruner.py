"""The column pruner: watches backward passes, accumulates scores, cuts in one or several stages."""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lrw import checks
from lrw.layers import input_sizes, named_layers
from lrw.nn import WinogradConv3d, WinogradLayer
from lrw.pruning.scores import SCORES
from lrw.pruning.selection import SCOPES, Kept, cubic_sparsity, select_global, select_per_layer
from lrw_kernels.winograd import column_cost, importance


class ColumnPruner:
    """Score every column of `net`'s Winograd layers during training and keep the best 1 - sparsity.

        loss.backward(); pruner.observe(); optimizer.step()      # any number of times
        pruner.prune()                                           # once, or once per stage

    sparsity: share of columns to drop (of multiplies, scope "global"), 0 <= sparsity < 1. score: a name in `SCORES`.
    scope "layer" drops the same share in each layer; "global" ranks score per multiply across layers and needs an
    `example_input` [N, C, D, H, W] to count multiplies. stages > 1 cuts gradually on a cubic schedule. floor: columns
    a layer keeps at least. decay: factor on the past at each observation, 1 sums plainly. Under torch.distributed
    scores are summed over ranks, and ranks that disagree raise. Raises ValueError naming the argument. Defaults are
    ours; what the paper used is not known.
    """

    def __init__(
        self,
        net: nn.Module,
        sparsity: float = 0.75,
        *,
        score: str = "product",
        scope: str = "layer",
        stages: int = 1,
        floor: int = 1,
        decay: float = 1.0,
        example_input: Tensor | None = None,
    ) -> None:
        checks.check_share(sparsity, "sparsity")
        checks.check_count(stages, "stages")
        checks.check_count(floor, "floor")
        if score not in SCORES:
            raise ValueError(f"score: {score!r}; accepted are {', '.join(SCORES)}")
        if scope not in SCOPES:
            raise ValueError(f"scope: {scope!r}; accepted are {', '.join(SCOPES)}")
        if not 0 < decay <= 1:
            raise ValueError(f"decay: {decay!r}; accepted is a factor above 0 up to 1")
        self.layers = named_layers(net, WinogradConv3d)
        if not self.layers:
            raise ValueError("net: holds no WinogradConv3d; convert it with lrw.to_winograd first")
        self.sparsity, self.score, self.scope = sparsity, score, scope
        self.stages, self.floor, self.decay = stages, floor, decay
        self.stage = self.observations = 0
        self.scores = {n: torch.zeros(m.geometry.tile.positions, dtype=torch.float64) for n, m in self.layers.items()}
        self._costs = self._column_costs(net, example_input) if scope == "global" else {}
        self._seen: dict[str, tuple[Tensor, Tensor]] = {}
        self._watch()

    # --- watching ----------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Let every layer hand us its weights of each forward pass; a hook on them catches the gradient."""
        names = {id(layer): name for name, layer in self.layers.items()}
        seen = self._seen

        def observer(layer: WinogradLayer, u: Tensor) -> None:
            name = names.get(id(layer))
            if name is not None:  # None: a copy of the layer that took the observer along
                u.register_hook(lambda du: _collect(seen, name, u.detach(), du))

        for layer in self.layers.values():
            layer.observer = observer

    def detach(self) -> None:
        """Stop watching; scores stay."""
        for layer in self.layers.values():
            layer.observer = None

    def observe(self) -> None:
        """Add what the backward passes since the last call say to the scores.

        Raises RuntimeError, with nothing counted, if there was none or if a score is not finite.
        """
        missing = [name for name in self.layers if name not in self._seen]
        if missing:
            raise RuntimeError(
                f"observe: no gradient reached {missing[0]!r} since the last call; call it after loss.backward() "
                "on a training pass through this network"
            )
        gains = {}
        for name, (u, du) in self._seen.items():
            tile, kept = self.layers[name].geometry.tile, list(self.layers[name].geometry.positions)
            weights = torch.from_numpy(importance(tile, kept)).to(u.device)
            gains[name] = kept, SCORES[self.score](u.double(), du.double(), weights).cpu()
        self._seen.clear()
        for name, (_, gained) in gains.items():
            if not bool(gained.isfinite().all()):
                raise RuntimeError(
                    f"observe: scores of {name!r} are not finite; the pass overflowed and was not counted"
                )
        for name, (kept, gained) in gains.items():
            self.scores[name] *= self.decay
            self.scores[name][kept] += gained
        self.observations += 1

    # --- cutting -----------------------------------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        """Whether every stage has been cut."""
        return self.stage >= self.stages

    def prune(self) -> dict[str, Kept]:
        """Cut to the next stage's sparsity; returns the kept positions by layer name.

        Raises RuntimeError when nothing has been observed, when all stages are done, or when ranks disagree.
        """
        if self.done:
            raise RuntimeError(f"prune: all {self.stages} stages are done; make a new pruner to cut further")
        if self.observations == 0:
            raise RuntimeError("prune: no scores yet; call observe() after at least one backward pass")
        scores = {name: _summed_over_ranks(score).tolist() for name, score in self.scores.items()}
        kept = self._select(scores, cubic_sparsity(self.sparsity, self.stage + 1, self.stages))
        _agree_over_ranks(kept)
        for name, positions in kept.items():
            self.layers[name].keep(positions)
        self._seen.clear()
        self.stage += 1
        return kept

    def _select(self, scores: Mapping[str, list[float]], sparsity: float) -> dict[str, Kept]:
        candidates = {name: layer.geometry.positions for name, layer in self.layers.items()}
        totals = {name: layer.geometry.tile.positions for name, layer in self.layers.items()}
        if self.scope == "global":
            budget = (1 - sparsity) * sum(totals[name] * cost for name, cost in self._costs.items())
            return select_global(scores, candidates, self._costs, budget, self.floor)
        keep = {name: max(self.floor, total - round(sparsity * total)) for name, total in totals.items()}
        return {name: select_per_layer(scores[name], candidates[name], keep[name]) for name in self.layers}

    def _column_costs(self, net: nn.Module, example_input: Tensor | None) -> dict[str, float]:
        if example_input is None:
            raise ValueError("example_input: scope 'global' counts multiplies and needs one, [N, C, D, H, W]")
        sizes = input_sizes(net, example_input, WinogradConv3d)
        costs = {}
        for name, layer in self.layers.items():
            geometry = layer.geometry
            output = geometry.output_size(sizes[name])
            costs[name] = float(column_cost(geometry.tile, layer.in_channels, layer.out_channels, output))
        return costs

    # --- resuming ----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Scores, counters and settings; the kept columns are in the layers' own masks."""
        settings = {key: getattr(self, key) for key in ("sparsity", "score", "scope", "stages", "floor", "decay")}
        counters = {"stage": self.stage, "observations": self.observations}
        return {
            "settings": settings,
            **counters,
            "scores": {name: score.clone() for name, score in self.scores.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict()`. Raises ValueError when it belongs to other layers or settings."""
        own = self.state_dict()
        if state["settings"] != own["settings"]:
            raise ValueError(f"state: made with {state['settings']}, this pruner has {own['settings']}")
        shapes = {name: tuple(score.shape) for name, score in state["scores"].items()}
        if shapes != {name: tuple(score.shape) for name, score in self.scores.items()}:
            raise ValueError(f"state: scores of layers {sorted(shapes)}; this network has {sorted(self.scores)}")
        self.stage, self.observations = state["stage"], state["observations"]
        self.scores = {name: score.clone().double() for name, score in state["scores"].items()}
        self._seen.clear()


def _collect(seen: dict[str, tuple[Tensor, Tensor]], name: str, u: Tensor, du: Tensor) -> None:
    """Several backward passes before one `observe` (gradient accumulation) add up, as they do in .grad."""
    seen[name] = (u, seen[name][1] + du if name in seen else du)


def _summed_over_ranks(score: Tensor) -> Tensor:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return score
    on_device = score.to("cuda") if torch.distributed.get_backend() == "nccl" else score.clone()
    torch.distributed.all_reduce(on_device)
    return on_device.cpu()


def _agree_over_ranks(kept: Mapping[str, Kept]) -> None:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    digest = hashlib.sha256(repr(sorted(kept.items())).encode()).hexdigest()
    digests: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(digests, digest)
    if len(set(digests)) != 1:
        raise RuntimeError("prune: ranks chose different columns; their networks or scores have diverged")
