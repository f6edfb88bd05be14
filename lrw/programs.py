"""A network's program in torch's terms: built from the network, run on its inputs."""

from collections import deque

import torch
from torch import Tensor, nn

from lrw.backends.layouts import channels_first, channels_last, empty
from lrw.export.trace import trace
from lrw.layers import evaluating
from lrw_kernels.codegen.machine import Machine, host
from lrw_kernels.program.assemble import Program, assemble
from lrw_kernels.program.bind import Bound, placed


class NetworkProgram:
    """`net` in eval mode, for inputs of `example_input`'s shape, as a program for `machine` (default: this one).

    Any number of Python threads may run it: each run takes a workspace of its own. Raises ValueError for what `trace`
    refuses.
    """

    def __init__(self, net: nn.Module, example_input: Tensor, threads: int, machine: Machine | None = None) -> None:
        self._machine = machine or host()
        self.program: Program = assemble(trace(net, example_input), self._machine, threads)
        with torch.no_grad(), evaluating(net):
            self.output: Tensor = net(example_input)
        self._weights = placed(self.program)
        self._idle = deque([Bound(self.program, self._weights)])

    def run(self, x: Tensor, times: list[float] | None = None) -> Tensor:
        """The network's output for x, contiguous where x is, else channels last; appends to `times` the seconds of
        each step."""
        threads = torch.get_num_threads()
        vectors = x.dim() == 2
        source = x.contiguous() if vectors else channels_last(x.permute(0, 2, 3, 4, 1), self._machine, threads)
        y = empty(self.program.output_size, torch.float32)
        try:
            bound = self._idle.pop()
        except IndexError:  # all are at work
            bound = Bound(self.program, self._weights)
        bound.run(source.contiguous().data_ptr(), y.data_ptr(), threads, times)
        self._idle.append(bound)
        if self.output.dim() == 2:
            return y.view(self.output.shape)
        return channels_first(y, self._machine, threads) if x.is_contiguous() else y.permute(0, 4, 1, 2, 3)

    def seconds(self, x: Tensor, rounds: int) -> list[float]:
        """The least each operator of the program took, in their order."""
        of_steps = []
        for _ in range(rounds):
            of_steps.append(times := list[float]())
            self.run(x, times)
        best = iter([min(column) for column in zip(*of_steps, strict=True)])
        return [sum(next(best) for _ in range(layer.details["steps"])) for layer in self.program.layers]
