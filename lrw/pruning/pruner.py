"""The column pruner: watches backward passes, accumulates scores, cuts in one or several stages."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lrw import checks
from lrw.layers import input_sizes, named_layers
from lrw.nn import Observer, WinogradConv3d, WinogradLayer
from lrw.pruning import ranks
from lrw.pruning.calibration import Calibration, Forward
from lrw.pruning.granularity import COLUMN, Granularity
from lrw.pruning.layerwise import refit
from lrw.pruning.scores import SCORES
from lrw.pruning.selection import SCOPES, Kept, cubic_sparsity, select_global, select_per_layer
from lrw.pruning.weights import winograd_convs
from lrw.typed import typed
from lrw_kernels.winograd import column_cost, importance

REDUCTIONS = ("scores", "gradients")


class NotFinite(RuntimeError):
    """A pass overflowed; its scores were not counted."""


class _Seen(NamedTuple):
    """What a backward pass showed of a layer: computed positions, their weights and gradients [K, Cin, Cout]."""

    positions: tuple[int, ...]
    u: Tensor
    du: Tensor


class ColumnPruner:
    """Score every column of `net`'s Winograd layers during training and keep the best 1 - sparsity.

        loss.backward(); pruner.observe(); optimizer.step()      # any number of times
        pruner.prune()                                           # once, or once per stage

    sparsity: share of columns (of their weights, where they are divided) to drop, of multiplies in scope "multiplies";
    0 <= sparsity < 1. granularity: blocks of channels that columns are divided into; by default they are whole. score:
    a name in `SCORES`. scope: "layer" drops the same share in each layer, "global" ranks scores across layers,
    "multiplies" ranks score per multiply across layers down to a budget and needs an `example_input`
    [N, C, D, H, W] to count them. stages: more than 1 cut
    gradually, on a cubic schedule. floor: columns a layer keeps at least (or by layer name). decay: factor on the past
    at each observation, 1 sums plainly. regrow: whatever was dropped competes again at the next stage; until the last
    it is computed, as zeros. Under torch.distributed scores are summed over ranks, the first rank's choice holds, and
    ranks that disagree raise; reduce "gradients" averages gradients over ranks before they are scored, at the cost of
    sending them, so that scores are those of one process. Raises ValueError naming the argument. Defaults are ours;
    the paper's are not known.
    """

    @typed
    def __init__(
        self,
        net: nn.Module,
        sparsity: float = 0.75,
        *,
        granularity: Granularity = COLUMN,
        score: str = "product",
        scope: str = "layer",
        stages: int = 1,
        floor: int | Mapping[str, int] = 1,
        decay: float = 1.0,
        regrow: bool = False,
        reduce: str = "scores",
        example_input: Tensor | None = None,
    ) -> None:
        checks.check_share(sparsity, "sparsity")
        checks.check_count(stages, "stages")
        for value, name, accepted in (
            (score, "score", SCORES),
            (scope, "scope", SCOPES),
            (reduce, "reduce", REDUCTIONS),
        ):
            if value not in accepted:
                raise ValueError(f"{name}: {value!r}; accepted are {', '.join(accepted)}")
        if not 0 < decay <= 1:
            raise ValueError(f"decay: {decay!r}; accepted is a factor above 0 up to 1")
        self._net, self.layers = net, winograd_convs(net)
        self.sparsity, self.granularity, self.score, self.scope = sparsity, granularity, score, scope
        self.stages, self.decay, self.regrow, self.reduce = stages, decay, regrow, reduce
        self.stage = self.observations = 0
        self._grids = {n: granularity.grid(m.in_channels, m.out_channels) for n, m in self.layers.items()}
        self.scores = {name: torch.zeros(self._blocks(name), dtype=torch.float64) for name in self.layers}
        self._floors = self._checked_floors(floor)
        self._shares = {name: self._block_shares(name) for name in self.layers}
        self._costs = self._block_costs(net, example_input)
        self._seen: dict[str, _Seen] = {}
        self._watch()

    def _blocks(self, name: str) -> int:
        """How many blocks a layer has; scores and kept ones number them [T, blocks of inputs, blocks of outputs]."""
        blocks_in, blocks_out = self._grids[name]
        return self.layers[name].geometry.tile.positions * blocks_in * blocks_out

    def _checked_floors(self, floor: int | Mapping[str, int]) -> dict[str, int]:
        """In blocks, by layer."""
        floors = dict(floor) if isinstance(floor, Mapping) else dict.fromkeys(self.layers, floor)
        for name, value in floors.items():
            if name not in self.layers:
                raise ValueError(f"floor: names {name!r}, which is no WinogradConv3d of this network")
            checks.check_count(value, "floor", self.layers[name].geometry.tile.positions)
        return {n: floors.get(n, 1) * blocks_in * blocks_out for n, (blocks_in, blocks_out) in self._grids.items()}

    # --- watching ----------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Let every layer hand us its weights of each forward pass; a hook on them catches the gradient."""
        names = {id(layer): name for name, layer in self.layers.items()}
        seen = self._seen

        def observer(layer: WinogradLayer, u: Tensor) -> None:
            name = names.get(id(layer))
            if name is not None:  # None: a copy of the layer that took the observer along
                # Detached here, not in the hook: a hook that holds the tensor it hangs on keeps it for good.
                stored = (self.layers[name].stored() if self.regrow else u).detach()
                positions = layer.geometry.positions
                u.register_hook(lambda du: _collect(seen, name, _Seen(positions, stored, du)))

        self._observer: Observer | None = observer
        for layer in self.layers.values():
            layer.observer = observer
        self._compute_all()

    def detach(self) -> None:
        """Stop watching, and computing what is dropped; scores stay."""
        for layer in self.layers.values():
            if layer.observer is self._observer:
                layer.observer = None
                layer.compute_all(False)
        self._observer = None

    def _compute_all(self) -> None:
        """Dropped columns that may come back are computed, until the last cut."""
        for layer in self.layers.values():
            if layer.observer is self._observer and self._observer is not None:
                layer.compute_all(self.regrow and not self.done)

    @property
    def ready(self) -> bool:
        """Whether a gradient has reached every layer since the last `observe`."""
        return all(name in self._seen for name in self.layers)

    @typed
    def observe(self, scale: float = 1.0) -> None:
        """Add what the backward passes since the last call say to the scores.

        scale: what the loss was multiplied with (`GradScaler.get_scale()`). Raises RuntimeError, with nothing counted,
        if there was no pass, if a score is not finite (`NotFinite`, on all ranks), or if layers were replaced.
        """
        self._check_layers("observe")
        missing = [name for name in self.layers if name not in self._seen]
        if missing:
            raise RuntimeError(
                f"observe: no gradient reached {missing[0]!r} since the last call; {self._why(missing[0])}"
            )
        gains = {}
        for name, (positions, u, du) in self._seen.items():
            tile = self.layers[name].geometry.tile
            f = torch.from_numpy(importance(tile, list(positions))).to(u.device)
            du = du.double() / scale
            du = ranks.averaged(du) if self.reduce == "gradients" else du
            gains[name] = positions, SCORES[self.score](u.double(), du, f, self.granularity).cpu()
        self._seen.clear()
        overflowed = [name for name, (_, gained) in gains.items() if not bool(gained.isfinite().all())]
        if float(ranks.summed(torch.tensor(float(len(overflowed))))) > 0:
            where = f"scores of {overflowed[0]!r}" if overflowed else "another rank's scores"
            raise NotFinite(f"observe: {where} are not finite; the pass overflowed and was not counted")
        for name, (positions, gained) in gains.items():
            self.scores[name] *= self.decay
            self.scores[name].view(-1, *self._grids[name])[list(positions)] += gained
        self.observations += 1

    # --- cutting -----------------------------------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        """Whether every stage has been cut."""
        return self.stage >= self.stages

    @typed
    def prune(
        self,
        *,
        calibration: Iterable[Any] | Tensor | None = None,
        forward: Forward | None = None,
        scores: bool | None = None,
    ) -> dict[str, Kept]:
        """Cut to the next stage's sparsity; returns the kept positions by layer name.

        calibration: some batches of samples, without labels, as `lrw.prune` takes them: layer after layer, what stays
        is fitted to what the layer gave before the cut, so that training goes on from nearly the same function;
        forward(net, batch): how the network is called with one; scores: whether it gives class scores, by which errors
        then count, by default where it seems so. Under torch.distributed what the first rank's samples say holds.
        Without `calibration` the cut is all that happens, as in the paper. Raises RuntimeError when nothing has been
        observed, when all stages are done, or when ranks disagree, and ValueError, with nothing cut, for batches that
        are not accepted.
        """
        checks.check_looked_at(calibration, forward=forward, scores=scores)
        samples = None if calibration is None else Calibration.of(calibration, forward)
        if self.done:
            raise RuntimeError(f"prune: all {self.stages} stages are done; make a new pruner to cut further")
        self._check_layers("prune")
        if self.observations == 0:
            raise RuntimeError("prune: no scores yet; call observe() after at least one backward pass")
        found = {name: self._reduced(score).tolist() for name, score in self.scores.items()}
        kept = self._select(found, cubic_sparsity(self.sparsity, self.stage + 1, self.stages))
        kept = ranks.decided(kept, {name: layer.mask for name, layer in self.layers.items()})
        masks = {name: self._mask(name, blocks) for name, blocks in kept.items()}
        if samples is None:
            for name, mask in masks.items():
                self.layers[name].keep_weights(mask)
        else:
            refit(self._net, self.layers, masks, samples, scores)
        self.stage += 1
        self._compute_all()
        self._seen.clear()
        return kept

    def _mask(self, name: str, kept: Kept) -> Tensor:
        """The layer's mask with the blocks `kept`; what is gone for good stays so."""
        layer = self.layers[name]
        blocks = torch.zeros(self._blocks(name), dtype=torch.bool)
        blocks[list(kept)] = True
        blocks = blocks.view(-1, *self._grids[name])
        mask = self.granularity.mask(blocks, layer.in_channels, layer.out_channels).to(layer.mask.device)
        return mask if self.regrow else mask & layer.mask

    def _check_layers(self, what: str) -> None:
        now = named_layers(self._net, WinogradConv3d)
        replaced = [name for name, layer in self.layers.items() if now.get(name) is not layer]
        if replaced:
            raise RuntimeError(f"{what}: {replaced[0]!r} is another layer now; make a new pruner after changing layers")

    def _why(self, name: str) -> str:
        layer = self.layers[name]
        if layer.observer is not self._observer or self._observer is None:
            return "another pruner watches it, or this one was detached"
        if not layer.trains_weights:
            return "its weights are frozen"
        return "call it after loss.backward() on a training pass through this network"

    def _reduced(self, score: Tensor) -> Tensor:
        return score if self.reduce == "gradients" else ranks.summed(score)

    def _candidates(self, name: str) -> list[int]:
        """Blocks that may be kept: all, or those of which something is still there."""
        if self.regrow:
            return list(range(self._blocks(name)))
        layer = self.layers[name]
        mask = layer.mask.cpu().double().expand(-1, layer.in_channels, layer.out_channels)
        return [int(b) for b in self.granularity.sums(mask).flatten().nonzero().flatten()]

    def _select(self, scores: Mapping[str, list[float]], sparsity: float) -> dict[str, Kept]:
        candidates, totals = {n: self._candidates(n) for n in self.layers}, {n: self._blocks(n) for n in self.layers}
        if self.scope != "layer":
            budget = (1 - sparsity) * sum(sum(costs) for costs in self._costs.values())
            return select_global(scores, candidates, self._costs, budget, self._floors)
        keep = {name: max(self._floors[name], total - round(sparsity * total)) for name, total in totals.items()}
        even = {name: len(set(shares)) == 1 for name, shares in self._shares.items()}
        return {
            name: select_per_layer(scores[name], candidates[name], keep[name])
            if even[name]
            else self._select_uneven(name, scores, candidates, sparsity)
            for name in self.layers
        }

    def _select_uneven(
        self, name: str, scores: Mapping[str, list[float]], candidates: Mapping[str, list[int]], sparsity: float
    ) -> Kept:
        """One layer whose blocks differ in size: best score per weight first, until the share of weights is kept."""
        one, shares = {name: candidates[name]}, {name: self._shares[name]}
        return select_global(scores, one, shares, (1 - sparsity) * sum(self._shares[name]), self._floors)[name]

    def _block_shares(self, name: str) -> list[float]:
        """Each block's weights as a share of its column's."""
        layer = self.layers[name]
        weights = self.granularity.weights(layer.in_channels, layer.out_channels).flatten()
        return (weights / weights.sum()).repeat(layer.geometry.tile.positions).tolist()

    def _block_costs(self, net: nn.Module, example_input: Tensor | None) -> dict[str, list[float]]:
        """What blocks cost where layers compete: their share of a column, in columns or in multiplies."""
        if self.scope != "multiplies":
            return self._shares
        if example_input is None:
            raise ValueError("example_input: scope 'multiplies' counts them and needs one, [N, C, D, H, W]")
        sizes = input_sizes(net, example_input, WinogradConv3d)
        costs = {}
        for name, layer in self.layers.items():
            output = layer.geometry.output_size(sizes[name])
            column = column_cost(layer.geometry.tile, layer.in_channels, layer.out_channels, output)
            costs[name] = [share * column for share in self._shares[name]]
        return costs

    # --- resuming ----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Scores, counters and settings; what is kept is in the layers' own masks."""
        keys = ("sparsity", "score", "scope", "stages", "decay", "regrow", "reduce")
        blocks = [self.granularity.inputs, self.granularity.outputs]
        settings = {**{key: getattr(self, key) for key in keys}, "granularity": blocks, "floors": self._floors}
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
        self._compute_all()


def _collect(seen: dict[str, _Seen], name: str, new: _Seen) -> None:
    """Several backward passes before one `observe` (gradient accumulation) add up, as they do in .grad."""
    before = seen.get(name)
    same = before is not None and before.positions == new.positions
    seen[name] = new._replace(du=before.du + new.du) if before is not None and same else new
