"""Laws of reading saved networks: damage is told with the file's name, soon and in little memory.

- a file of `lrw.save` with any damage is refused; nothing that was changed is loaded
- a file whose digest fits what was changed (or of the old format, which has none) is refused or gives a network that
  computes finite numbers and can be saved again
- a state dict of torch.save or safetensors with any damage is refused or gives tensors by name
"""

import json
import struct
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

import lrw
from lrw.geometry import Geometry
from lrw.header import digest
from lrw.state_dict import read_state_dict
from lrw_kernels.winograd import Tile
from verify.damage import FUZZED, damaged, damaged_json, refusal

X = torch.randn(1, 2, 4, 5, 4, generator=torch.Generator().manual_seed(0))
pytestmark = pytest.mark.filterwarnings("ignore")  # torch's own, of what it finds in a damaged file


def skeleton() -> nn.Module:
    convs = [nn.Conv3d(2, 2, 3, padding=1), nn.Conv3d(2, 3, 3, padding=1), nn.Conv3d(3, 3, 3, padding=1)]
    return nn.Sequential(*convs, nn.Conv3d(3, 20, 3, padding=1), nn.BatchNorm3d(20)).eval()


def network() -> nn.Module:
    """A layer of each kind."""
    torch.manual_seed(0)
    net = lrw.to_winograd(skeleton(), 2)
    net[0].keep(range(8, 60))
    net[1] = lrw.compress(nn.Sequential(net[1]))[0]
    net[2] = lrw.LowRankWinogradConv3d.of(net[2], 2)
    geometry, blocks = Geometry(Tile.of(2), (1, 1, 1)), ((16, tuple(range(5, 40))), (3, ()), (1, (7, 63)))
    net[3] = lrw.GroupedConv3d(3, blocks, geometry, bias=True)
    for p in net[3].parameters():
        nn.init.normal_(p)
    return net.eval()


@dataclass(frozen=True)
class Saved:
    """A path to write damaged files to, the whole one's bytes, what its header says without digest, and its tensors."""

    path: Path
    whole: bytes = field(repr=False)
    said: dict[str, Any] = field(default_factory=dict, repr=False)
    tensors: dict[str, Tensor] = field(default_factory=dict, repr=False)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    path = lrw.save(network(), tmp_path_factory.mktemp("saved") / "net.safetensors")
    tensors = {name: tensor.clone() for name, tensor in read_state_dict(path).items()}
    said = {key: value for key, value in said_in(path).items() if key != "digest"}
    return Saved(path, path.read_bytes(), said, tensors)


def said_in(path: Path) -> dict[str, Any]:
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    return json.loads(json.loads(raw[8 : 8 + length])["__metadata__"]["lrw"])


def write(path: Path, text: str, tensors: dict[str, Tensor]) -> None:
    save_file(tensors, path, metadata={"lrw": text})


@given(st.data())
@FUZZED
def test_damaged_files_are_refused(saved: Saved, data: st.DataObject) -> None:
    path, raw = saved.path, data.draw(damaged(saved.whole))
    path.unlink(missing_ok=True)
    path.write_bytes(raw)
    said = refusal(lambda: lrw.load(path, skeleton()))
    assert raw == saved.whole or (said is not None and str(path) in said)


@pytest.mark.parametrize("version", [1, 2])
@given(st.data())
@FUZZED
def test_headers_that_say_other_things_are_refused_or_mean_them(
    saved: Saved, version: int, data: st.DataObject
) -> None:
    text = data.draw(damaged_json({**saved.said, "format": version}))
    try:
        values = json.loads(text)
        values["digest"] = digest({k: v for k, v in values.items() if k != "digest"}, saved.tensors)
        text = json.dumps(values) if version == 2 else text
    except (ValueError, RecursionError, TypeError):
        pass  # not even JSON, for the reader to find
    write(saved.path, text, saved.tensors)
    assert_loads_or_names(saved.path)


def extreme(draw: st.DrawFn, tensor: Tensor) -> Tensor:
    dtypes = [torch.bool, torch.int8, torch.int64, torch.float16, torch.bfloat16, torch.float64, torch.complex64]
    kind = draw(st.sampled_from(["dtype", "value", "shape", "empty", "row"]))
    if kind == "dtype":
        return tensor.to(draw(st.sampled_from(dtypes)))
    if kind == "value" and tensor.numel():
        values = [0, -1, 100] + ([float("nan"), float("inf")] if tensor.is_floating_point() else [])
        return tensor.clone().flatten().index_fill(0, torch.tensor([0]), draw(st.sampled_from(values))).view_as(tensor)
    if kind == "shape":
        return tensor.reshape(-1, 1)
    return tensor[:0].clone() if kind == "empty" and tensor.dim() else tensor.reshape(1, *tensor.shape)


@st.composite
def other_tensors(draw: st.DrawFn, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    found = dict(tensors)
    for _ in range(draw(st.integers(1, 2))):
        name = draw(st.sampled_from(sorted(found)))
        if draw(st.integers(0, 4)) == 0:
            found[draw(st.sampled_from(["0.kept", "3.kept", "new", name + "."]))] = found.pop(name)
        else:
            found[name] = extreme(draw, found[name])
    return found


@given(st.data())
@FUZZED
def test_other_tensors_are_refused_or_loaded(saved: Saved, data: st.DataObject) -> None:
    found = data.draw(other_tensors(saved.tensors))
    write(saved.path, json.dumps({**saved.said, "digest": digest(saved.said, found)}), found)
    assert_loads_or_names(saved.path)


def assert_loads_or_names(path: Path) -> None:
    """Whether it is refused by name, or gives a network that is one: it can be saved, and loads as the same."""
    nets: list[nn.Module] = []
    said = refusal(lambda: nets.append(lrw.load(path, skeleton()).eval()))
    assert said is None or str(path) in said
    for net in nets:
        again = lrw.load(lrw.save(net, path.with_name("again")), skeleton()).eval()
        torch.testing.assert_close(again(X), net(X), rtol=0, atol=0, equal_nan=True)


FORMS = {"zip": ("a.pt", True), "legacy": ("b.pt", False), "safetensors": ("c.safetensors", None)}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Saved]:
    """State dicts of a plain network in every form that is read: a path for damaged ones, and the whole one's bytes."""
    folder, found = tmp_path_factory.mktemp("plain"), {}
    for form, (name, zipped) in FORMS.items():
        path, tensors = folder / name, nn.Sequential(nn.Conv3d(1, 2, 2), nn.BatchNorm3d(2)).state_dict()
        if zipped is None:
            save_file(tensors, path)
        else:
            torch.save(tensors, path, _use_new_zipfile_serialization=zipped)
        found[form] = Saved(path, path.read_bytes())
    return found


@pytest.mark.parametrize("form", FORMS)
@given(st.data())
@FUZZED
def test_damaged_state_dicts_are_refused_or_hold_tensors(
    plain: dict[str, Saved], form: str, data: st.DataObject
) -> None:
    path = plain[form].path
    path.unlink(missing_ok=True)
    path.write_bytes(data.draw(damaged(plain[form].whole)))
    found: list[dict[str, Tensor]] = []
    with warnings.catch_warnings(action="ignore"):
        said = refusal(lambda: found.append(read_state_dict(path)))
    assert said is None or said.startswith(f"path: {path} holds no state dict")
    assert all(isinstance(name, str) and t.is_cpu and t.numel() < 1000 for each in found for name, t in each.items())
