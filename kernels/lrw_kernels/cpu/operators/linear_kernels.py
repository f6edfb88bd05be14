"""Linear layers as dot products, the rows of the weight read where they lie."""

from lrw_kernels.codegen.kernel import Function
from lrw_kernels.codegen.machine import FLOAT
from lrw_kernels.cpu.operators.intrinsics import dots, finish_pixel, linear_at
from lrw_kernels.network.operators import BY_CHANNEL


def linear_item(lanes: int, rows: int, samples: int, ahead: int, function: str) -> Function:
    """Items are blocks of outputs x blocks of samples, which are fastest: `records.Linear`.

    Chunk by chunk of the sum `rows` of the weight, once from memory, meet `samples` after `samples`.
    """

    by_channel = function == BY_CHANNEL

    def linear(job, item, scratch):
        k = linear_at(job)
        blocks = (k.batch + k.block - 1) // k.block
        output, sample = item // blocks * k.outputs, item % blocks * k.block
        outputs, batch = min(k.outputs, k.channels - output), min(k.block, k.batch - sample)
        for first in range(0, k.terms, k.chunk):
            count = min(k.chunk, k.terms - first)
            for row in range(0, outputs, rows):
                weights = k.weights + (output + row) * k.weights_row + first * FLOAT
                for i in range(0, batch, samples):
                    x, total = k.x + (sample + i) * k.x_n + first * FLOAT, scratch + i * k.total + row * FLOAT
                    dots(lanes, rows, samples, ahead, weights, k.weights_row, outputs - row, x, k.x_n, batch - i,
                         count, total, k.total, first)  # fmt: skip
        shift = output * FLOAT
        for i in range(batch):
            source, target = scratch + i * k.total, k.y + (sample + i) * k.y_n + shift
            residual = k.residual + (sample + i) * k.residual_n + shift if k.residual != 0 else 0
            finish_pixel(function, lanes, source, lanes * FLOAT, k.bias + shift, residual, target, k.after,
                         k.parameters + shift * by_channel, outputs)  # fmt: skip

    return linear
