"""Modules, conversion, low rank, pruning, compression and checkpoints on small networks."""

import copy
import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import lrw
from lrw.layers import named_layers
from lrw.lowrank import count_parameters
from lrw.nn import CompressedConv3d, LowRankWinogradConv3d, WinogradConv3d
from lrw_kernels.winograd import Tile, domain_error, spatial_error, winograd_cost

X = torch.randn(2, 1, 8, 9, 10, generator=torch.Generator().manual_seed(1))


class SubclassedConv3d(nn.Conv3d):
    """As torchvision's Conv3DSimple: a subclass must be found too."""


def small_net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        SubclassedConv3d(1, 4, 3, padding=1), nn.ReLU(),
        nn.Conv3d(4, 6, (1, 3, 3), padding=(0, 1, 1), bias=False), nn.BatchNorm3d(6), nn.ReLU(),
        nn.Conv3d(6, 8, 3, stride=2), nn.Conv3d(8, 8, 1), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(8, 3),
    ).eval()  # fmt: skip


def trained(net: nn.Module, pruner: lrw.ColumnPruner | None = None, steps: int = 3) -> nn.Module:
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=1e-2)
    for step in range(steps):
        loss = (net(X) - step).square().mean()
        optimizer.zero_grad()
        loss.backward()
        if pruner is not None:
            pruner.observe()
        optimizer.step()
    return net


def pruned_net(sparsity: float = 0.75, **options: object) -> tuple[nn.Module, lrw.ColumnPruner]:
    net = lrw.add_low_rank(lrw.to_winograd(small_net(), 2), rank=4)
    pruner = lrw.ColumnPruner(net, sparsity, **options)  # type: ignore[arg-type]
    trained(net, pruner)
    pruner.prune()
    return trained(net), pruner


# --- conversion ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tile", [2, 4, (1, 2, 3)])
def test_conversion_computes_the_same_function(tile: int | tuple[int, int, int]) -> None:
    net = small_net()
    converted = lrw.to_winograd(net, tile, filter=lambda name, conv: conv.kernel_size == (3, 3, 3))
    expected = net(X).detach()
    layers = named_layers(converted, WinogradConv3d).values()
    bound = max(spatial_error(layer.geometry.tile, layer.in_channels, 2**-23) for layer in layers)
    torch.testing.assert_close(converted(X), expected, rtol=0, atol=10 * bound * float(expected.abs().max()))
    assert isinstance(net[0], SubclassedConv3d), "the given network was changed"


def test_report_names_what_was_skipped_and_why() -> None:
    report = lrw.to_winograd(small_net(), 2).report
    assert list(report.converted) == ["0", "2"]
    assert "stride" in report.skipped["5"]
    assert "kernel_size 1" in report.skipped["6"]
    assert "5: left as it is" in str(report)


def test_a_plain_2d_axis_gets_one_output() -> None:
    assert lrw.to_winograd(small_net(), 4)[2].geometry.tile.outputs == (1, 4, 4)


def test_shared_modules_stay_shared() -> None:
    conv = nn.Conv3d(2, 2, 3, padding=1)
    net = lrw.to_winograd(nn.ModuleDict({"a": conv, "b": conv}), 2)
    assert net["a"] is net["b"]


# --- low rank --------------------------------------------------------------------------------------------------------


def test_low_rank_starts_at_the_given_network_and_trains_only_the_factors() -> None:
    net = lrw.to_winograd(small_net(), 2)
    before, base = net(X), net[0].weight.detach().clone()
    dense_trainable = count_parameters(net)[0]
    lrw.add_low_rank(net, rank=3)
    assert torch.equal(net(X), before)
    trained(net)
    assert torch.equal(net[0].weight, base)
    assert net[0].Gr.grad is not None
    assert net[0].Gc.abs().sum() > 0
    assert count_parameters(net)[0] < dense_trainable


def test_trainable_parameters_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    net = lrw.add_low_rank(lrw.to_winograd(small_net(), 2), rank={"0": 1, "2": 2})
    lrw.print_trainable_parameters(net)
    assert f"{count_parameters(net)[0]:,} of" in capsys.readouterr().out
    assert (net[0].rank, net[2].rank) == (1, 2)


# --- pruning ---------------------------------------------------------------------------------------------------------


def test_pruner_keeps_the_best_by_its_score() -> None:
    net = lrw.to_winograd(small_net(), 2)
    pruner = lrw.ColumnPruner(net, 0.5)
    trained(net, pruner)
    scores = pruner.scores["0"].clone()
    kept = pruner.prune()["0"]
    assert len(kept) == 32
    assert scores[list(kept)].min() >= scores[[p for p in range(64) if p not in kept]].max()
    assert net[0].geometry.kept == kept


def test_scores_equal_an_independent_statement_of_the_rule() -> None:
    net = lrw.to_winograd(small_net(), 2)
    pruner = lrw.ColumnPruner(net, 0.5)
    net(X).square().sum().backward()
    u, du = net[0].weight.detach().numpy().astype(np.float64), net[0].weight.grad.numpy().astype(np.float64)
    pruner.observe()
    np.testing.assert_allclose(pruner.scores["0"].numpy(), np.abs(u * du).sum(axis=(1, 2)), rtol=1e-6)


def test_gradient_accumulation_scores_the_summed_gradient() -> None:
    net = lrw.to_winograd(small_net(), 2)
    pruner = lrw.ColumnPruner(net, 0.5)
    for half in X.split(1):
        net(half).square().sum().backward()
    pruner.observe()
    both = pruner.scores["0"].clone()
    other = lrw.to_winograd(small_net(), 2)
    whole = lrw.ColumnPruner(other, 0.5)
    other(X).square().sum().backward()
    whole.observe()
    torch.testing.assert_close(both, whole.scores["0"], rtol=1e-4, atol=0)


def test_gradual_stages_only_ever_drop() -> None:
    net = lrw.to_winograd(small_net(), 2)
    pruner = lrw.ColumnPruner(net, 0.75, stages=3)
    previous = set(range(64))
    counts = []
    while not pruner.done:
        trained(net, pruner, 1)
        kept = set(pruner.prune()["0"])
        assert kept <= previous
        previous = kept
        counts.append(len(kept))
    assert counts == [30, 18, 16]  # 64 - round(64 * 0.75 * (1 - (1 - k/3)^3))


def test_global_scope_stays_within_the_multiply_budget() -> None:
    net, pruner = pruned_net(0.75, scope="global", example_input=X)
    spent = total = 0
    sizes = {"0": (8, 9, 10), "2": (8, 9, 10)}
    for name, layer in pruner.layers.items():
        output = layer.geometry.output_size(sizes[name])
        arguments = (layer.geometry.tile, layer.in_channels, layer.out_channels, output)
        spent += winograd_cost(*arguments, kept=layer.geometry.positions).products
        total += winograd_cost(*arguments).products
    assert spent <= 0.25 * total
    assert net(X).isfinite().all()


def test_pruner_resumes_where_it_stopped() -> None:
    def run(interrupted: bool) -> dict[str, tuple[int, ...]]:
        net = lrw.to_winograd(small_net(), 2)
        pruner = lrw.ColumnPruner(net, 0.75, stages=2)
        trained(net, pruner, 2)
        pruner.prune()
        if interrupted:
            again = lrw.to_winograd(small_net(seed=5), 2)
            resumed = lrw.ColumnPruner(again, 0.75, stages=2)
            again.load_state_dict(net.state_dict())
            resumed.load_state_dict(pruner.state_dict())
            net, pruner = again, resumed
        trained(net, pruner, 2)
        return pruner.prune()

    assert run(interrupted=True) == run(interrupted=False)


def test_a_copied_network_does_not_feed_the_pruner() -> None:
    net = lrw.to_winograd(small_net(), 2)
    pruner = lrw.ColumnPruner(net, 0.5)
    copy.deepcopy(net)(X).square().sum().backward()
    with pytest.raises(RuntimeError, match="no gradient reached '0'"):
        pruner.observe()


# --- compression and checkpoints -------------------------------------------------------------------------------------


def test_compressed_equals_masked_and_is_as_small_as_counted() -> None:
    net, _ = pruned_net()
    small = lrw.compress(net, X)
    assert all(isinstance(m, CompressedConv3d) for m in named_layers(small, lrw.nn.WinogradLayer).values())
    masked, compact = net[0](X), small[0](X)
    norms = small[0].weight.detach().norm(dim=1).amax(dim=1).numpy()
    tolerance = domain_error(Tile.of(2), small[0].geometry.kept, norms, float(X.abs().max()), 1, 2**-23)
    torch.testing.assert_close(compact, masked, rtol=0, atol=tolerance)
    first = small.report.layers[0]
    assert (first.kept, first.columns) == (16, 64)
    assert first.stored == 16 * 1 * 4 == small[0].weight.numel()
    expected = winograd_cost(Tile.of(2), 1, 4, (8, 9, 10), kept=small[0].geometry.positions).multiplies
    assert first.multiplies == expected
    assert "16 of 64 columns" in str(small.report)


@pytest.mark.parametrize("form", ["winograd", "lowrank", "compressed"])
def test_saved_networks_load_in_a_fresh_process_without_pickle(form: str, tmp_path: Path) -> None:
    net = lrw.to_winograd(small_net(), 2) if form == "winograd" else pruned_net()[0]
    net = lrw.compress(net) if form == "compressed" else net
    path = lrw.save(net, tmp_path / "net.safetensors")
    torch.save({"x": X, "y": net(X).detach()}, tmp_path / "pair.pt")
    code = (
        "import sys, torch, lrw; sys.modules['pickle'] = None\n"
        "from verify.unit.test_modules import small_net\n"
        f"net = lrw.load({str(path)!r}, small_net(seed=7)).eval()\n"
        f"import importlib; del sys.modules['pickle']; pair = torch.load({str(tmp_path / 'pair.pt')!r})\n"
        "assert torch.equal(net(pair['x']), pair['y'])\n"
        "assert 'numba' not in sys.modules and 'triton' not in sys.modules\n"
        "print('equal')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=_environment(), check=False)
    assert done.stdout.strip() == "equal", done.stderr


def _environment() -> dict[str, str]:
    import os

    root = Path(__file__).resolve().parents[2]
    return {**os.environ, "PYTHONPATH": f"{root}:{root / 'kernels'}"}


def test_prefixes_of_wrappers_are_stripped(tmp_path: Path) -> None:
    net = lrw.to_winograd(small_net(), 2)
    wrapped = nn.ModuleDict({"module": nn.ModuleDict({"_orig_mod": net})})
    again = lrw.load(lrw.save(wrapped, tmp_path / "a.safetensors"), small_net(3)).eval()
    assert torch.equal(again(X), net(X))


def test_identity_of_a_layer_is_checked_on_load(tmp_path: Path) -> None:
    path = lrw.save(lrw.to_winograd(small_net(), 2), tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="layer '0' has tile"):
        lrw.load(path, lrw.to_winograd(small_net(), 4))


def test_state_dict_round_trip_restores_the_kept_columns() -> None:
    net, _ = pruned_net()
    again = lrw.add_low_rank(lrw.to_winograd(small_net(9), 2), rank=4)
    again.load_state_dict(net.state_dict())
    assert again[0].geometry.kept == net[0].geometry.kept
    assert torch.equal(again(X), net(X))


def other_version(path: Path) -> Path:
    """The same file, claiming a later format."""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    header["__metadata__"]["lrw"] = header["__metadata__"]["lrw"].replace('"format": 1', '"format": 9')
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])
    return path


def with_nan() -> nn.Module:
    net = small_net()
    net[0].weight.data[0, 0, 0, 0, 0] = float("nan")
    return net


def low_rank(rank: object, **options: object) -> Callable[[Path], object]:
    return lambda tmp: lrw.add_low_rank(lrw.to_winograd(small_net(), 2), rank, **options)  # type: ignore[arg-type]


def pruner_with(**options: object) -> Callable[[Path], object]:
    return lambda tmp: lrw.ColumnPruner(lrw.to_winograd(small_net(), 2), **options)  # type: ignore[arg-type]


def text_file(tmp: Path) -> Path:
    (tmp / "text").write_text("no tensors")
    return tmp / "text"


BAD: dict[str, Callable[[Path], object]] = {
    "0.weight: weights hold NaN": lambda tmp: lrw.to_winograd(with_nan()),
    "net: no layer to convert": lambda tmp: lrw.to_winograd(nn.Linear(2, 2)),
    "tile: 0 outputs": lambda tmp: lrw.to_winograd(small_net(), 0),
    "rank of '0': 65; accepted are whole numbers from 1 to 64": low_rank({"0": 65}),
    "rank of '0': 0; accepted are whole numbers from 1 to 64": low_rank(0),
    "rank: names 'nine'": low_rank({"nine": 3}),
    "init: 'svd'": low_rank(3, init="svd"),
    "net: holds no WinogradConv3d": lambda tmp: lrw.add_low_rank(small_net()),
    "sparsity: 1.0; accepted is a share": pruner_with(sparsity=1.0),
    "sparsity: -0.1": pruner_with(sparsity=-0.1),
    "score: 'l1'; accepted are product": pruner_with(score="l1"),
    "scope: 'net'": pruner_with(scope="net"),
    "stages: 0": pruner_with(stages=0),
    "decay: 0": pruner_with(decay=0),
    "example_input: scope 'global'": pruner_with(scope="global"),
    "net: holds no Winograd layer": lambda tmp: lrw.compress(small_net()),
    "conv: stride (2, 2, 2)": lambda tmp: WinogradConv3d.from_conv3d(nn.Conv3d(1, 1, 3, stride=2)),
    "in_channels: 0": lambda tmp: WinogradConv3d(0, 1, 3),
    "is no safetensors file": lambda tmp: lrw.load(text_file(tmp), small_net()),
    "has format 9; this version reads format 1": lambda tmp: lrw.load(
        other_version(lrw.save(lrw.to_winograd(small_net()), tmp / "a")), small_net()
    ),
    "skeleton: has no layer '0'": lambda tmp: lrw.load(
        lrw.save(lrw.to_winograd(small_net()), tmp / "a"), nn.Linear(1, 1)
    ),
    "layer: a SubclassedConv3d; accepted are": lambda tmp: lrw.export_layer(small_net()[0], 8, tmp),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_named_and_nothing_is_written(message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError) as caught:
        BAD[message](tmp_path)
    assert message in str(caught.value)
    assert not [p for p in tmp_path.iterdir() if p.name.endswith(".partial")]


def test_pruning_out_of_turn_is_refused() -> None:
    net = lrw.to_winograd(small_net(), 2)
    pruner = lrw.ColumnPruner(net, 0.5)
    with pytest.raises(RuntimeError, match="no scores yet"):
        pruner.prune()
    trained(net, pruner, 1)
    pruner.prune()
    with pytest.raises(RuntimeError, match="all 1 stages are done"):
        pruner.prune()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no file"):
        lrw.load(tmp_path / "none", small_net())


def test_low_rank_layers_train_under_compile() -> None:
    layer = LowRankWinogradConv3d.of(WinogradConv3d(2, 3, 3, padding=1), 4)
    x = torch.randn(1, 2, 5, 6, 7)
    y = torch.compile(layer, fullgraph=True, backend="aot_eager")(x)
    y.sum().backward()
    torch.testing.assert_close(y, layer(x))
    assert layer.Gc.grad is not None
