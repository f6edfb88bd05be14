"""lrw.prune: the function is kept as well as it can be, any network goes, samples in any order, stopped and gone on."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lrw
from lrw.pruning import Granularity
from lrw.pruning.calibration import Calibration, Site
from lrw.pruning.layerwise import MEMORY, draw
from verify.unit.lrw.small_nets import X, pruned_net, small_net


class Branches(nn.Module):
    """A residual block, a layer that is used twice, one that no sample reaches, and a head of two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv3d(4, 8, 3, padding=1)
        self.norm = nn.BatchNorm3d(8)
        self.twice = nn.Conv3d(8, 8, 3, padding=1, bias=False)
        self.unused = nn.Conv3d(8, 8, 3)
        self.strided = nn.Conv3d(8, 6, 3, stride=2)
        self.flat = nn.Conv3d(6, 6, (1, 3, 3), padding=(0, 1, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        y = self.norm(self.stem(x)).relu()
        y = y + self.twice(y).relu()
        y = y + self.twice(y).relu()
        y = self.flat(self.strided(y))
        return y.mean((2, 3, 4)), {"map": y, "where": y.argmax(1)}


def branches() -> Branches:
    torch.manual_seed(2)
    net = Branches().eval()
    with torch.no_grad():
        net.norm.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
    return net


def samples(batches: int = 3, size: int = 2, seed: int = 0, shape: tuple[int, ...] = (4, 7, 9, 8)) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, *shape, generator=generator) for _ in range(batches)]


def quietly(net: nn.Module, batches: Any, **options: Any) -> nn.Module:
    return lrw.prune(net, batches, progress=False, **{"sparsity": 0.5, **options})


def far(net: nn.Module, original: nn.Module, batches: list[Tensor]) -> float:
    """Distance of the first output, root mean square over that of the original's."""
    with torch.no_grad():
        ours, theirs = (torch.cat([n(x)[0] for x in batches]) for n in (net, original))
    return float((ours - theirs).norm() / theirs.norm())


def test_any_network_is_pruned_nearer_than_by_the_cut() -> None:
    net, batches, fresh = branches(), samples(), samples(seed=9)
    before = {name: t.clone() for name, t in net.state_dict().items()}
    pruned = quietly(net, batches)
    report = pruned.report
    assert [layer.size.name for layer in report.layers] == ["stem", "twice", "flat"]
    assert [(layer.size.kept, layer.size.columns) for layer in report.layers] == [(32, 64), (32, 64), (8, 16)]
    assert set(report.skipped) == {"unused", "strided"}
    assert all(layer.errors.fitted < 0.9 * layer.errors.cut for layer in report.layers)
    cut = lrw.to_winograd(net, 2)
    for layer in report.layers:
        cut.get_submodule(layer.size.name).keep(pruned.get_submodule(layer.size.name).geometry.positions)
    assert far(pruned, net, batches) < 0.8 * far(cut, net, batches)
    assert far(pruned, net, fresh) < 0.9 * far(cut, net, fresh)
    assert not any(bool((before[name] != t).any()) for name, t in net.state_dict().items())
    assert not any(m._forward_hooks for n in (net, pruned) for m in n.modules())


def test_nothing_removed_changes_nothing() -> None:
    net, batches = branches(), samples()
    pruned = quietly(net, batches, sparsity=0.0)
    assert far(pruned, net, batches) < 1e-5
    assert all(layer.size.kept == layer.size.columns for layer in pruned.report.layers)
    assert pruned.report.error < 1e-5


def test_order_and_batching_of_samples_do_not_matter() -> None:
    net, batches = branches(), samples()
    one = quietly(net, batches)
    apart = [sample[None] for batch in reversed(batches) for sample in batch]
    two = quietly(net, iter(apart))
    for name in ("stem", "twice", "flat"):
        a, b = one.get_submodule(name), two.get_submodule(name)
        assert a.geometry.kept == b.geometry.kept
        torch.testing.assert_close(a.weights(), b.weights(), rtol=1e-3, atol=1e-4)


def test_a_seed_says_it_all() -> None:
    net, batches = branches(), samples()
    one, two, other = (quietly(net, batches, seed=seed, voxels=200) for seed in (1, 1, 2))
    weights = [n.twice.weights() for n in (one, two, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_batches_as_loaders_give_them() -> None:
    net, batches = branches(), samples()
    expected = quietly(net, batches)
    labels = torch.zeros(2)
    forms: list[Any] = [
        torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.cat(batches)), batch_size=2),
        [(x, labels) for x in batches],
        [{"image": x, "label": labels} for x in batches],
        torch.cat(batches),
    ]
    for form in forms:
        torch.testing.assert_close(quietly(net, form).flat.weights(), expected.flat.weights(), rtol=1e-3, atol=1e-4)
    called = quietly(net, [{"volume": x} for x in batches], forward=lambda n, batch: n(batch["volume"]))
    torch.testing.assert_close(called.flat.weights(), expected.flat.weights(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("granularity", [Granularity(None, 4), Granularity(4, None), Granularity(3, 5)])
def test_blocks_of_channels(granularity: Granularity) -> None:
    net, batches = branches(), samples()
    pruned = quietly(net, batches, granularity=granularity)
    assert float(pruned.twice.mask.double().expand(64, 8, 8).mean()) == pytest.approx(0.5, abs=0.01)
    assert all(layer.errors.fitted < layer.errors.cut for layer in pruned.report.layers)
    small = lrw.compress(pruned)
    assert far(small, pruned, batches) < 1e-5


def test_winograd_layers_are_pruned_as_they_are() -> None:
    net, _ = pruned_net(0.5)
    pruned = quietly(net, [X], sparsity=0.75, spare=())
    layer = pruned.get_submodule("0")
    assert isinstance(layer, lrw.LowRankWinogradConv3d)
    assert layer.geometry.columns == 16
    assert set(layer.geometry.positions) <= set(net[0].geometry.positions)  # what was gone costs nothing
    assert torch.equal(layer.Gr, net[0].Gr)
    assert far(pruned, net, [X]) < 1


def test_layers_of_few_inputs_are_spared() -> None:
    pruned = quietly(small_net(), [X])
    assert pruned.report.skipped["0"].startswith("1 input channels are too few")
    assert isinstance(pruned[0], nn.Conv3d)
    assert isinstance(quietly(small_net(), [X], spare=())[0], lrw.WinogradConv3d)
    named = quietly(small_net(), [X], spare=("2",))
    assert named.report.skipped["2"] == "spared"


def test_what_follows_goes_on_from_it() -> None:
    net, batches = branches(), samples()
    pruned = quietly(net, batches)
    trained = lrw.add_low_rank(pruned, 4)
    small = lrw.compress(trained)
    assert far(small, net, batches) < 0.5
    assert sum(1 for m in small.modules() if isinstance(m, lrw.CompressedConv3d)) == 3


def test_statistics_are_taken_anew_where_that_helps() -> None:
    net, batches = branches(), [3 * x + 1 for x in samples()]
    pruned = quietly(net, batches, sparsity=0.9)
    kept, taken = pruned.report.error, pruned.report.statistics
    other = quietly(net, batches, sparsity=0.9)
    with torch.no_grad():
        other.norm.load_state_dict(net.norm.state_dict())
    from lrw.pruning.statistics import Wanted

    as_before = Wanted(net, Calibration.of(batches)).distance(other)
    assert kept <= as_before * (1 + 1e-6)
    assert taken is (kept < as_before * (1 - 1e-6))
    assert not pruned.norm.training
    assert pruned.norm.momentum == net.norm.momentum
    plain = nn.Sequential(nn.Conv3d(4, 4, 3, padding=1), nn.ReLU())
    assert quietly(plain, batches).report.statistics is None


def test_modes_stay() -> None:
    net = branches()
    net.train()
    net.norm.eval()
    pruned = quietly(net, samples())
    assert pruned.training
    assert not pruned.norm.training
    assert pruned.twice.training
    assert net.training


def test_double_and_half_precision() -> None:
    batches = samples()
    double = quietly(branches().double(), [x.double() for x in batches])
    assert double.twice.weight.dtype == torch.float64
    assert far(double, branches().double(), [x.double() for x in batches]) < 0.5
    half = quietly(branches().bfloat16(), [x.bfloat16() for x in batches])
    assert half.twice.weight.dtype == torch.bfloat16


def test_report_says_what_was_done() -> None:
    report = quietly(branches(), samples()).report
    text = str(report)
    assert text.splitlines()[0].split()[:3] == ["layer", "tile", "columns"]
    assert "unused: left as it is, the first batch does not reach it" in text
    assert "strided: left as it is, stride (2, 2, 2)" in text
    said = json.loads(json.dumps(report.to_dict()))
    assert said["layers"][1]["size"]["kept"] == 32
    assert 0 < said["error"] < 1


REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no network": (lambda: (3, [X]), {}, r"net: a int; accepted is a torch network"),
    "no layer": (lambda: (nn.Linear(2, 2), [X]), {}, r"net: holds no layer to prune"),
    "no batches": (lambda: (branches(), []), {}, r"batches: holds none"),
    "not batches": (lambda: (branches(), 3), {}, r"batches: a int; accepted are batches one after the other"),
    "a text": (lambda: (branches(), ["x"]), {}, r"batches\[0\]: a str; accepted is a tensor, a tuple"),
    "an empty batch": (lambda: (branches(), [samples()[0], samples()[0][:0]]), {}, r"batches\[1\]: holds no sample"),
    "NaN": (lambda: (branches(), [samples()[0], samples()[1] * torch.nan]), {}, r"batches\[1\]: holds NaN or infinity"),
    "sparsity": (lambda: (branches(), samples()), {"sparsity": 1.0}, r"sparsity: 1.0; accepted is a share"),
    "spare": (lambda: (branches(), samples()), {"spare": ("stem2",)}, r"spare: names 'stem2', which is no layer"),
    "spared all": (lambda: (branches(), samples()), {"spare": ("stem", "twice", "flat")}, r"net: holds no"),
    "tile": (lambda: (branches(), samples()), {"tile": 0}, r"tile: 0"),
    "voxels": (lambda: (branches(), samples()), {"voxels": 0}, r"voxels: 0; accepted are whole numbers from 1"),
    "ridge": (lambda: (branches(), samples()), {"ridge": 0}, r"ridge: 0; accepted is a number above 0"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_accepted(name: str) -> None:
    make, options, words = REFUSED[name]
    net, batches = make()
    with pytest.raises(ValueError, match=words):
        quietly(net, batches, **options)


def test_memory_is_bounded() -> None:
    layer = lrw.WinogradConv3d(512, 512, 3, padding=1, tile=4, device="meta")
    calibration = Calibration((None,) * 8, ((0,) * 8,) * 8, lambda net, batch: None)
    site = Site(place=0, calls=1, input_size=(64, 64, 64), passes=1.0)
    tiles = 64 * draw("wide", layer, site, calibration, voxels=1 << 30, seed=0).each
    taken = 4 * tiles * (216 * 512 + 2 * 64 * 512)
    assert 0.8 * MEMORY < taken <= MEMORY * 1.1
    many = Calibration((None,) * 100, (tuple(range(100)),) * 100, lambda net, batch: None)
    drawn = draw("wide", layer, site, many, voxels=1 << 30, seed=0)
    count = sum(len(drawn.chosen(range(i, i + 100), 0, 100, (64, 64, 64))) for i in range(0, 10000, 100))
    assert 0.8 * MEMORY < 4 * count * (216 * 512 + 2 * 64 * 512) < 1.1 * MEMORY


class Killed(Exception):
    """As if the process ended there."""


def test_goes_on_after_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net, batches = branches(), samples()
    expected = quietly(net, batches)
    from lrw.pruning.resume import Done

    written = Done.write

    def write(self: Done, place: int, layer: Any) -> None:
        written(self, place, layer)
        if place == 1:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Done, "write", write)
        with pytest.raises(Killed):
            quietly(net, batches, checkpoint=tmp_path / "run")
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["layer-0.safetensors", "layer-1.safetensors"]
    pruned = quietly(net, batches, checkpoint=tmp_path / "run")
    for name, tensor in expected.state_dict().items():
        assert torch.equal(pruned.state_dict()[name], tensor), name
    assert [layer.errors for layer in pruned.report.layers] == [layer.errors for layer in expected.report.layers]
    for other in ({"sparsity": 0.6}, {"seed": 3}, {"tile": 4}, {"granularity": Granularity(None, 4)}):
        with pytest.raises(ValueError, match="is of another network, other samples or settings"):
            quietly(net, batches, checkpoint=tmp_path / "run", **other)
    with pytest.raises(ValueError, match="is of another network"):
        quietly(net, samples(seed=5), checkpoint=tmp_path / "run")


@pytest.mark.parametrize("damage", ["cut off", "empty", "foreign", "a number changed"])
def test_damaged_checkpoints_are_refused(tmp_path: Path, damage: str) -> None:
    net, batches = branches(), samples()
    quietly(net, batches, checkpoint=tmp_path)
    path = tmp_path / "layer-1.safetensors"
    content = path.read_bytes()
    changed = bytearray(content)
    changed[-5] ^= 0x55
    path.write_bytes({"cut off": content[:-10], "empty": b"", "foreign": b"hello" * 40}.get(damage, bytes(changed)))
    with pytest.raises(ValueError, match=r"layer-1.safetensors is no file of lrw.prune, or damaged"):
        quietly(net, batches, checkpoint=tmp_path)


KILLED = """
import sys, torch, lrw
from verify.unit.lrw.test_prune import branches, samples
lrw.prune(branches(), samples(), sparsity=0.5, checkpoint=sys.argv[1], progress=False)
"""


def test_killed_processes_leave_whole_layers(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[3]
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], cwd=root)
    while process.poll() is None and not list(tmp_path.glob("layer-*.safetensors")):
        pass
    process.kill()
    process.wait()
    pruned = quietly(branches(), samples(), checkpoint=tmp_path)
    expected = quietly(branches(), samples())
    torch.testing.assert_close(pruned.flat.weights(), expected.flat.weights(), rtol=1e-3, atol=1e-4)


def products(net: nn.Module) -> float:
    """Multiplies left in the products of a pruned network's layers, as a share of direct convolution's."""
    sizes = [layer.size for layer in net.report.layers]
    sample = {"stem": 7 * 9 * 8, "twice": 2 * 7 * 9 * 8, "flat": 3 * 4 * 3}
    direct = {"stem": 4 * 8 * 27, "twice": 8 * 8 * 27, "flat": 6 * 6 * 9}
    tiles = {
        layer.size.name: net.get_submodule(layer.size.name).geometry.tile.grid(grid)
        for layer, grid in zip(net.report.layers, ((7, 9, 8), (7, 9, 8), (3, 4, 3)), strict=True)
    }
    pairs = {"stem": 32, "twice": 128, "flat": 36}
    left = sum(s.kept * tiles[s.name][0] * tiles[s.name][1] * tiles[s.name][2] * pairs[s.name] for s in sizes)
    return left / sum(sample[name] * direct[name] for name in sample)


@pytest.mark.parametrize("share", [0.1, 0.05])
def test_a_plan_leaves_as_many_multiplies_as_it_may(share: float) -> None:
    net, batches = branches(), samples()
    planned = quietly(net, batches, sparsity=None, multiplies=share)
    assert 0.8 * share < products(planned) <= share
    assert len({layer.size.kept / layer.size.columns for layer in planned.report.layers}) > 1


def test_a_plan_does_better_than_the_same_share_everywhere() -> None:
    net, batches = branches(), samples()
    even = quietly(net, batches, sparsity=0.75)
    planned = quietly(net, batches, sparsity=None, multiplies=products(even))
    assert products(planned) <= products(even)
    assert planned.report.error < even.report.error


def test_plans_take_the_tile_they_are_given_and_winograd_layers_theirs() -> None:
    net, batches = branches(), samples()
    fixed = quietly(net, batches, sparsity=None, multiplies=0.2, tile=3)
    assert {layer.size.tile for layer in fixed.report.layers} == {"F(3x3x3, 3x3x3)", "F(1x3x3, 1x3x3)"}
    again = quietly(lrw.to_winograd(net, 4), batches, sparsity=None, multiplies=0.2)
    assert {layer.size.tile for layer in again.report.layers} == {"F(4x4x4, 3x3x3)", "F(1x4x4, 1x3x3)"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sparsity": None}, "sparsity, multiplies, speedup: 0 are given; accepted is one of them"),
        ({"multiplies": 0.5}, "sparsity, multiplies, speedup: 2 are given"),
        ({"sparsity": None, "multiplies": 0}, "multiplies: 0; accepted is a share of direct convolution's"),
        ({"sparsity": None, "multiplies": 1e-6}, r"multiplies: 1e-06; a column in each layer takes 0.0\d+ already"),
        ({"tile": "two"}, "tile: 'two'; accepted are outputs per axis and 'auto'"),
    ],
)
def test_budgets_that_are_not_accepted(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        quietly(branches(), samples(), **options)


def wide() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv3d(16, 16, 3, padding=1), nn.ReLU(), nn.Conv3d(16, 16, 3, padding=1), nn.ReLU()]
    return nn.Sequential(nn.Conv3d(2, 16, 1), *layers, nn.AdaptiveAvgPool3d(1)).eval()


def test_a_speedup_is_planned_in_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of times that are said: 100 ms, of which two layers take 40 each; a column of F(2,3) takes half a millisecond."""
    monkeypatch.setattr(sys.modules["lrw.prune"], "_milliseconds", lambda *_: 100.0)
    monkeypatch.setattr("lrw_kernels.choice.measured.Measured.milliseconds", lambda *_: 40.0)
    monkeypatch.setattr("lrw_kernels.choice.measured.Columns.__call__", lambda _, of, tile, kept: kept / 2)
    batches = samples(1, 2, shape=(2, 8, 8, 8))
    net = quietly(wide(), batches, sparsity=None, speedup=2.5, tile=2)
    kept = [layer.size.kept for layer in net.report.layers]
    assert 38 <= sum(kept) <= 40  # 20 ms are left for the two
    assert net.report.ms == (100.0, 100.0)
    assert "one sample takes 100.00 ms, 100.00 before: 1.00 times as fast" in str(net.report)
    with pytest.raises(ValueError, match=r"speedup: 6; accepted is up to 4.8 here, as 20 of 100 ms are not these"):
        quietly(wide(), batches, sparsity=None, speedup=6, tile=2)


def test_a_speedup_is_measured() -> None:
    net = quietly(wide(), samples(1, 2, shape=(2, 8, 8, 8)), sparsity=None, speedup=1.05)
    assert min(net.report.ms) > 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"speedup": 1}, "speedup: 1; accepted is a number above 1"),
        ({"speedup": True}, "speedup: True; accepted is a number above 1"),
        ({"speedup": 2.0, "forward": lambda net, batch: net(batch)}, "speedup: with forward= nothing is known"),
    ],
)
def test_speedups_that_are_not_accepted(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        quietly(branches(), samples(), sparsity=None, **options)


def test_what_was_dropped_before_stays_so_and_counts() -> None:
    net, batches = branches(), samples()
    half = quietly(net, batches)
    for more in (0.0, 0.25, 0.5):
        again = quietly(half, batches, sparsity=more)
        assert [layer.size.kept for layer in again.report.layers] == [32, 32, 8]
        assert again.twice.geometry.kept == half.twice.geometry.kept
    fewer = quietly(half, batches, sparsity=0.75)
    assert set(fewer.twice.geometry.positions) < set(half.twice.geometry.positions)
    planned = quietly(half, batches, sparsity=None, multiplies=0.2)
    assert far(planned, half, batches) < 0.05  # it is that small already
    assert all(layer.size.kept > 4 for layer in planned.report.layers)


def test_networks_without_floating_outputs_are_pruned_and_planned() -> None:
    batches = samples()
    for options in ({"sparsity": 0.5}, {"sparsity": None, "multiplies": 0.1}):
        net = quietly(branches(), batches, forward=lambda n, x: n(x)[1]["where"], **options)
        assert net.report.error is None
        assert "outputs are off" not in str(net.report)
        assert min(layer.size.kept for layer in net.report.layers) > 1


def test_layers_that_see_several_volumes_a_sample_weigh_as_many() -> None:
    class Folded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.many = (nn.Conv3d(4, 4, 3, padding=1) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            y = self.one(x).relu()
            parts = y.unfold(2, 4, 4).unfold(3, 4, 4).unfold(4, 4, 4)  # [N, C, 2, 2, 2, 4, 4, 4]
            return self.many(parts.permute(0, 2, 3, 4, 1, 5, 6, 7).reshape(-1, 4, 4, 4, 4)).mean((2, 3, 4))

    torch.manual_seed(0)
    net = Folded().eval()
    planned = quietly(net, samples(shape=(4, 8, 8, 8)), sparsity=None, multiplies=0.1)
    one, many = planned.report.layers
    assert (one.products + many.products) / 2 == pytest.approx(0.1, abs=0.02)  # both make 512 outputs a sample


def test_layers_whose_batch_is_no_multiple_of_the_samples_are_looked_at_as_much() -> None:
    class Less(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv3d(4, 8, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x[:-1])

    torch.manual_seed(0)
    net = Less().eval()
    batches = samples(2, 9)
    pruned = quietly(net, batches, voxels=4096)
    with torch.no_grad():
        ours, theirs = (torch.cat([n(x) for x in batches]) for n in (pruned, net))
    off = float((ours - theirs).norm() / theirs.norm())
    assert off == pytest.approx(pruned.report.layers[0].errors.fitted, rel=0.2)


def test_equal_samples_are_not_all_left_out() -> None:
    same = samples(1, 1)[0].repeat(40, 1, 1, 1, 1)
    report = quietly(branches(), [same], voxels=1).report
    assert all(layer.errors.cut > 0 for layer in report.layers)


def test_statistics_of_norms_that_no_sample_reaches_stay() -> None:
    class Aside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.aside = nn.Conv3d(4, 4, 3, padding=1), nn.BatchNorm3d(4), nn.BatchNorm3d(4)
            self.head = nn.BatchNorm1d(4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.norm(self.conv(x)).mean((2, 3, 4)))

    torch.manual_seed(0)
    net = Aside().train()
    net.aside.running_mean.fill_(3.0)  # type: ignore[union-attr]
    pruned = quietly(net, samples(2, 5), sparsity=0.9)
    assert bool((pruned.aside.running_mean == 3).all())
    assert all(m.training for m in pruned.modules())
    single = quietly(net, samples(1, 1), sparsity=0.9)  # one value for each channel of the head has no variance
    assert single.report.statistics is False
    assert torch.equal(single.norm.running_mean, net.norm.running_mean)  # type: ignore[arg-type]


def test_blocks_that_keep_nothing() -> None:
    net = lrw.to_winograd(branches(), 2)
    with torch.no_grad():
        net.twice.weight[:, :, :4] *= 1e-6
        net.twice.mask = torch.ones(64, 1, 8, dtype=torch.bool)
        net.twice.mask[:, :, :4] = False
    pruned = quietly(net, samples())
    assert not bool(pruned.twice.mask[:, :, :4].any())
    assert bool(torch.isfinite(pruned.twice.weights()).all())


def test_inputs_beside_the_first_are_checked_and_tell_samples_apart(tmp_path: Path) -> None:
    def call(net: nn.Module, batch: Any) -> Any:
        return net(batch[0] + batch[1])

    first, second = samples(), samples(seed=4)
    pairs = list(zip(first, second, strict=True))
    with pytest.raises(ValueError, match=r"batches\[2\]: holds NaN or infinity"):
        quietly(branches(), [*pairs[:2], (first[2], second[2] * torch.nan)], forward=call)
    quietly(branches(), pairs, forward=call, checkpoint=tmp_path)
    with pytest.raises(ValueError, match="of another network, other samples"):
        quietly(branches(), list(zip(first, first, strict=True)), forward=call, checkpoint=tmp_path)


def test_small_ridges_and_samples_of_another_dtype_are_taken() -> None:
    net = branches()
    assert far(quietly(net, samples(), ridge=1e-12), net, samples()) < 0.5
    half = quietly(branches().bfloat16(), samples())
    assert half.twice.weight.dtype == torch.bfloat16
    planned = quietly(branches().bfloat16(), samples(), sparsity=None, multiplies=0.2)
    assert {layer.size.tile for layer in planned.report.layers} == {"F(2x2x2, 3x3x3)", "F(1x2x2, 1x3x3)"}


def test_what_is_pruned_in_inference_mode_can_be_trained() -> None:
    with torch.inference_mode():
        net = quietly(branches(), samples())
    trained = lrw.add_low_rank(net, 2)
    trained(samples()[0])[0].sum().backward()
    assert trained.twice.Gr.grad is not None


def test_tied_layers_are_left_alone() -> None:
    net = branches()
    net.stem2 = nn.Conv3d(4, 8, 3, padding=1)
    net.stem2.weight = net.stem.weight
    pruned = quietly(net, samples(), sparsity=None, multiplies=0.1)
    assert [layer.size.name for layer in pruned.report.layers] == ["twice", "flat"]
    assert "shared" in pruned.report.skipped["stem"] or "too" in pruned.report.skipped["stem"]


def test_a_plan_that_was_timed_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([100.0, 100.0, 90.0, 90.0, 80.0])
    monkeypatch.setattr(sys.modules["lrw.prune"], "_milliseconds", lambda *_: next(times))
    monkeypatch.setattr("lrw_kernels.choice.measured.Measured.milliseconds", lambda *_: 40.0)
    monkeypatch.setattr("lrw_kernels.choice.measured.Columns.__call__", lambda _, of, tile, kept: kept / 2)
    batches = samples(1, 2, shape=(2, 8, 8, 8))
    one = quietly(wide(), batches, sparsity=None, speedup=2.5, tile=2, checkpoint=tmp_path)
    two = quietly(wide(), batches, sparsity=None, speedup=2.5, tile=2, checkpoint=tmp_path)
    assert [layer.size.kept for layer in two.report.layers] == [layer.size.kept for layer in one.report.layers]
    assert (one.report.ms, two.report.ms) == ((100.0, 100.0), (100.0, 90.0))
    (tmp_path / "plan.json").write_text("{")  # damaged: another is made, and the layers are not of it
    with pytest.raises(ValueError, match="of another network, other samples or settings"):
        quietly(wide(), batches, sparsity=None, speedup=2.5, tile=2, checkpoint=tmp_path)
