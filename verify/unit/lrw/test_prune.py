"""lrw.prune: the function is kept, samples in any order and form, memory bounded, wrong arguments named."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import lrw
from lrw.pruning.calibration import Calibration, Site
from lrw.pruning.layerwise import MEMORY, draw
from verify.unit.lrw.prunable import branches, far, quietly, samples
from verify.unit.lrw.small_nets import X


def test_weights_that_are_no_numbers_are_named() -> None:
    net = branches()
    next(net.parameters()).data.view(-1)[0] = torch.nan
    with pytest.raises(ValueError, match="weights hold NaN or infinity"):
        quietly(net, samples(), sparsity=0.5)


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


def test_what_follows_goes_on_from_it() -> None:
    net, batches = branches(), samples()
    pruned = quietly(net, batches)
    trained = lrw.add_low_rank(pruned, 4)
    small = lrw.compress(trained)
    assert far(small, net, batches) < 0.5
    assert sum(1 for m in small.modules() if isinstance(m, lrw.CompressedConv3d)) == 3


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
    "no layer": (lambda: (nn.Linear(2, 2), [X]), {}, r"net: no layer to prune \(it holds no nn.Conv3d\)"),
    "no batches": (lambda: (branches(), []), {}, r"batches: holds none"),
    "not batches": (lambda: (branches(), 3), {}, r"batches: 3; accepted is Iterable or Tensor"),
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


def test_equal_samples_are_not_all_left_out() -> None:
    same = samples(1, 1)[0].repeat(40, 1, 1, 1, 1)
    report = quietly(branches(), [same], voxels=1).report
    assert all(layer.errors.cut > 0 for layer in report.layers)


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
