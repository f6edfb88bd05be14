"""Loops of LLVM IR at a builder's position, with values carried from turn to turn."""

from collections.abc import Callable, Sequence
from typing import Any

from lrw_kernels.codegen.vector import I64, Vectors


def counted_loop(
    builder: Any, count: Any, carried: Sequence[Any], body: Callable[[Any, list[Any]], Sequence[Any]]
) -> list[Any]:
    """for i in range(count): carried = body(i, carried); at least one turn. Returns what is carried out."""

    def more(i: Any) -> tuple[Any, Any]:
        following = builder.add(i, I64(1))
        return following, builder.icmp_signed("<", following, count)

    return _turns(builder, I64(0), carried, body, more)


def repeated(builder: Any, count: Any, carried: Sequence[Any], body: Callable[[list[Any]], Sequence[Any]]) -> list[Any]:
    """carried = body(carried), `count` times, once at least: counts down, which is an instruction less."""

    def more(left: Any) -> tuple[Any, Any]:
        fewer = builder.sub(left, I64(1))
        return fewer, builder.icmp_signed("!=", fewer, I64(0))

    return _turns(builder, count, carried, lambda _, values: body(values), more)


def loop(
    builder: Any, count: Any, carried: Sequence[Any], body: Callable[[Any, list[Any]], Sequence[Any]]
) -> list[Any]:
    """`counted_loop` for a count that may be 0."""
    before = builder.block
    with builder.if_then(builder.icmp_signed(">", count, I64(0))):
        results = counted_loop(builder, count, carried, body)
        after = builder.block
    return merge(builder, [(carried, before), (results, after)])


def _turns(
    builder: Any,
    first: Any,
    carried: Sequence[Any],
    body: Callable[[Any, list[Any]], Sequence[Any]],
    more: Callable[[Any], tuple[Any, Any]],
) -> list[Any]:
    """carried = body(i, carried) from i = `first` on; `more` gives the next i and whether there is one."""
    before, turn, after = builder.block, builder.append_basic_block("loop"), builder.append_basic_block("done")
    builder.branch(turn)
    builder.position_at_end(turn)
    i = builder.phi(I64)
    i.add_incoming(first, before)
    phis = [builder.phi(value.type) for value in carried]
    for phi, value in zip(phis, carried, strict=True):
        phi.add_incoming(value, before)
    results = list(body(i, list(phis)))
    following, again = more(i)
    i.add_incoming(following, builder.block)
    for phi, value in zip(phis, results, strict=True):
        phi.add_incoming(value, builder.block)
    builder.cbranch(again, turn, after)
    builder.position_at_end(after)
    return results


def each_vector(
    v: Vectors, count: Any, carried: Sequence[Any], body: Callable[[Any, Any, list[Any]], Sequence[Any]]
) -> list[Any]:
    """carried = body(offset, mask, carried) along `count` contiguous numbers, whole vectors first, without a mask; then
    for those that are left. `offset` is in bytes."""
    b = v.builder
    whole = b.udiv(count, I64(v.lanes))
    results = loop(b, whole, carried, lambda i, values: body(b.mul(i, I64(v.bytes)), None, values))
    few, before = b.sub(count, b.mul(whole, I64(v.lanes))), b.block
    with b.if_then(b.icmp_signed(">", few, I64(0))):
        last = body(b.mul(whole, I64(v.bytes)), v.between(I64(0), few), results)
        inside = b.block
    return merge(b, [(results, before), (last, inside)])


def merge(builder: Any, arms: Sequence[tuple[Sequence[Any], Any]]) -> list[Any]:
    """Phis, at the builder's position, of the values each arm (values, its last block) arrives with."""
    phis = [builder.phi(value.type) for value in arms[0][0]]
    for values, block in arms:
        for phi, value in zip(phis, values, strict=True):
            phi.add_incoming(value, block)
    return phis
