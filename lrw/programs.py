"""A network's program in torch's terms: built from the network, run on its inputs."""

from collections import deque
from dataclasses import replace

import torch
from torch import Tensor, nn

from lrw.backends.layouts import channels_first, channels_last, empty
from lrw.layers import evaluating
from lrw.trace import trace
from lrw_kernels.choice.convolution import Choose
from lrw_kernels.codegen.arena import Memory
from lrw_kernels.codegen.machine import host
from lrw_kernels.program.assemble import assemble
from lrw_kernels.program.bind import Bound, placed
from lrw_kernels.program.program import Program


class NetworkProgram:
    """`net` in eval mode, for inputs of `example_input`'s shape, as a program for this machine, with the tiles `choose`
    gives.

    Any number of Python threads may run it: each run takes a workspace of its own. Raises ValueError for what `trace`
    refuses.
    """

    def __init__(self, net: nn.Module, example_input: Tensor, threads: int, choose: Choose) -> None:
        self._machine = host()
        with torch.inference_mode(False):
            network = trace(net, example_input.clone(), choose=choose)
        with torch.inference_mode(False), torch.no_grad(), evaluating(net):
            given = example_input.clone()
            count = given._version
            self._shape = net(given).shape
        if given._version != count:
            raise ValueError("net: writes to its input; accepted is a network that leaves it as it was")
        made = assemble(network, self._machine, threads)
        self._weights, self.weights_bytes = placed(made), len(made.weights)
        self.program: Program = replace(made, weights=b"")  # they are there once
        self._idle = deque([self._ready()])

    def run(self, x: Tensor, times: list[float] | None = None) -> Tensor:
        """The network's output for x, contiguous where x is, else channels last; appends to `times` the seconds of
        each step."""
        threads = torch.get_num_threads()
        inner = x if x.dim() == 2 else channels_last(x.permute(0, 2, 3, 4, 1), self._machine, threads)
        source = inner.contiguous()  # by name: an address keeps no tensor alive
        y = empty(self.program.output_size, torch.float32)
        try:
            bound, buffers = ready = self._idle.pop()
        except IndexError:  # all are at work
            bound, buffers = ready = self._ready()
        bound.run(buffers.address, (source.data_ptr(), y.data_ptr()), threads, times)
        self._idle.append(ready)
        if len(self._shape) != 5:  # [N, C], with or without ones behind
            return y.view(self._shape)
        return channels_first(y, self._machine, threads) if x.is_contiguous() else y.permute(0, 4, 1, 2, 3)

    def _ready(self) -> tuple[Bound, Memory]:
        """What a run needs for itself alone: a bound program and its buffers."""
        return Bound(self.program, self._weights), Memory.of(max(1, self.program.buffer_bytes))

    def seconds(self, x: Tensor, rounds: int) -> list[float]:
        """The least seconds each operator of the program took in `rounds` runs on x, in the order of the layers."""
        of_steps = []
        for _ in range(rounds):
            of_steps.append(times := list[float]())
            self.run(x, times)
        best = iter([min(column) for column in zip(*of_steps, strict=True)])
        return [sum(next(best) for _ in range(layer.details["steps"])) for layer in self.program.layers]
