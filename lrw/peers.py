"""What a network could run on instead, where it is installed: torch.compile, OpenVINO, ONNX Runtime, in float32.

Each maker gives a call of a network on its arguments, on as many threads as torch has, that returns the arrays that
come out. These are others' packages: whatever they raise comes through.
"""

import importlib
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from copy import deepcopy
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lrw.timing import interleaved

Args = tuple[Tensor, ...]
Call = Callable[[], Sequence[Any]]


def compiled(net: nn.Module, args: Args) -> Call:
    """A call of `net` as torch.compile makes it."""
    torch.compiler.reset()
    fast: Any = torch.compile(deepcopy(net))

    def call() -> Sequence[Any]:
        with torch.inference_mode():
            return pytree.tree_leaves(fast(*args))

    return call


def openvino(net: nn.Module, args: Args) -> Call:
    """A call of `net` in OpenVINO."""
    return openvino_call(openvino_model(net, args), args)


def openvino_model(net: nn.Module, args: Args) -> Any:
    """`net` as a model of OpenVINO's for inputs of these sizes."""
    runtime: Any = importlib.import_module("openvino")
    model = runtime.convert_model(net, example_input=args[0] if len(args) == 1 else args)
    model.reshape({given: list(x.shape) for given, x in zip(model.inputs, args, strict=True)})
    return model


def openvino_infer(model: Any) -> Callable[..., Sequence[Any]]:
    """A model of OpenVINO's as a function of arrays."""
    runtime: Any = importlib.import_module("openvino")
    options = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "PERFORMANCE_HINT": "LATENCY"}
    made = runtime.Core().compile_model(model, "CPU", {**options, "INFERENCE_PRECISION_HINT": "f32"})
    request = made.create_infer_request()
    return lambda *numbers: [*request.infer(list(numbers)).values()]


def openvino_call(model: Any, args: Args) -> Call:
    """A call of a model of OpenVINO's."""
    infer, numbers = openvino_infer(model), [x.numpy() for x in args]
    return lambda: infer(*numbers)


def onnxruntime(net: nn.Module, args: Args) -> Call:
    """A call of `net` in ONNX Runtime."""
    runtime: Any = importlib.import_module("onnxruntime")
    with TemporaryDirectory() as folder:
        file = Path(folder) / "net.onnx"
        with redirect_stdout(sys.stderr):
            torch.onnx.export(net, args, file, dynamo=True, external_data=True, verbose=False)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    given = {place.name: x.numpy() for place, x in zip(session.get_inputs(), args, strict=True)}
    return lambda: session.run(None, given)


MAKERS: dict[str, Callable[[nn.Module, Args], Call]] = {
    "torch.compile": compiled,
    "OpenVINO": openvino,
    "ONNX Runtime": onnxruntime,
}
_NEEDED = {"torch.compile": (), "OpenVINO": ("openvino",), "ONNX Runtime": ("onnxruntime", "onnxscript")}


def installed() -> list[str]:
    """The names of MAKERS whose packages are there."""
    return [name for name, packages in _NEEDED.items() if all(find_spec(package) is not None for package in packages)]


def made(make: Callable[[nn.Module, Args], Call], net: nn.Module, args: Args) -> Call | str:
    """A maker's call, once called; or why there is none, in a line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            call = make(net, args)
            call()
    except Exception as error:  # of any class
        return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    return call


@dataclass(frozen=True)
class Beside:
    """Milliseconds of a pass of ours and of each peer, in turns; why others have none."""

    ours: float
    times: Mapping[str, float]
    without: Mapping[str, str]

    def described(self) -> dict[str, float | None]:
        """The times, for JSON: None for those that do not take the network."""
        return {**self.times, **dict.fromkeys(self.without)}

    def lines(self) -> list[str]:
        """The same for people."""
        why = [f"{name} does not take it: {reason}" for name, reason in self.without.items()]
        if not self.times:
            return why
        fastest = min(self.times, key=self.times.__getitem__)
        times = ", ".join(f"{name} {ms:.2f} ms" for name, ms in self.times.items())
        ratio = f"{self.times[fastest] / self.ours:.2f} times as fast as {fastest}"
        return [f"in turns with others: {times}, accelerated {self.ours:.2f} ms, {ratio}", *why]


def beside(ours: Call, calls: Mapping[str, Call | str], seconds: float = 5.0) -> Beside:
    """Time `ours` in turns with each of `calls`, which `made` gave."""
    there = {name: call for name, call in calls.items() if not isinstance(call, str)}
    times = interleaved({"": ours, **there}, seconds=seconds) if there else {"": 0.0}
    without = {name: call for name, call in calls.items() if isinstance(call, str)}
    return Beside(1e3 * times[""], {name: 1e3 * times[name] for name in there}, without)
