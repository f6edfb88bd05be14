"""Dot products along contiguous numbers, as vector code."""

from collections.abc import Sequence
from typing import Any

from lrw_kernels.codegen.loops import each_vector
from lrw_kernels.codegen.machine import FLOAT
from lrw_kernels.codegen.vector import I64, Vectors


def emit_dots(v: Vectors, rows: int, samples: int, ahead: int, arguments: Sequence[Any]) -> None:
    """Dot products of `count` numbers of each row of weights with each sample of x, to total [samples, rows].

    arguments (i64): weights, bytes from row to row, how many rows there are; x, bytes from sample to sample, how many
    there are; count; total, bytes from sample to sample; whether they are added to what is in it. Where there are fewer
    than `rows` and `samples`, the last one comes again: total has room for all. Weights are asked for `ahead` bytes
    before they are needed, where that is not 0.
    """
    weights, row_step, row_count, x, sample_step, sample_count, count, total, total_step, more = arguments
    b = v.builder
    of_rows = _places(b, weights, row_step, rows, row_count)
    of_samples = _places(b, x, sample_step, samples, sample_count)

    def products(offset: Any, mask: Any, sums: list[Any]) -> list[Any]:
        inputs = [v.load_lanes(b.add(at, offset), mask) for at in of_samples]
        results: list[Any] = []
        for row, at in enumerate(of_rows):
            here = b.add(at, offset)
            if ahead and mask is None:
                v.prefetch(b.add(here, I64(ahead)))
            factors = v.load_lanes(here, mask)
            before = sums[row * samples : (row + 1) * samples]
            results += [v.fma(factors, value, one) for value, one in zip(inputs, before, strict=True)]
        return results

    sums = each_vector(v, count, [v.constant(0.0)] * (rows * samples), products)
    adds, together = b.icmp_signed("!=", more, I64(0)), min(rows, v.lanes)
    narrow = Vectors(b, v.element, together)
    for sample in range(samples):
        of_sample = sums[sample::samples]
        for row in range(0, rows, together):
            at = b.add(total, b.add(b.mul(I64(sample), total_step), I64(row * FLOAT)))
            before = b.select(adds, narrow.load(at), narrow.constant(0.0))
            narrow.store(narrow.add(before, _across(v, of_sample[row : row + together])), at)


def _places(b: Any, first: Any, step: Any, wanted: int, count: Any) -> list[Any]:
    """The addresses of `wanted` rows, the last of `count` again where there are fewer."""
    last = b.sub(count, I64(1))
    numbers = [b.select(b.icmp_signed("<", I64(i), last), I64(i), last) for i in range(wanted)]
    return [b.add(first, b.mul(number, step)) for number in numbers]


def _across(v: Vectors, values: Sequence[Any]) -> Any:
    """The sums over all lanes of each of `values`, a power of two of them and as many as lanes at most, in a vector."""
    values, part = list(values), v.lanes  # each value takes `part` neighbouring lanes
    count = len(values)
    while len(values) > 1:  # halves of two values side by side
        lower = [start + i for start in range(0, 2 * v.lanes, part) for i in range(part // 2)]
        upper = [i + part // 2 for i in lower]
        pairs = zip(values[::2], values[1::2], strict=True)
        values, part = [v.add(v.shuffle(*pair, lower), v.shuffle(*pair, upper)) for pair in pairs], part // 2
    (value,) = values
    while part > 1:
        part //= 2
        value = v.add(value, v.shuffle(value, value, [(i + part) % v.lanes for i in range(v.lanes)]))
    return v.shuffle(value, value, range(0, v.lanes, v.lanes // count))
