"""A hash of memory in generic LLVM IR: order-sensitive, one pass of vectors, as fast as memory is read.

Every 64-bit lane walks its own words: s = state ^ word, s ^= s >> 29, state = s + (s << 13) mod 2^64. Each step is a
bijection of the state for every word and of the word for every state, so a single changed word always changes the
result; so do several that do not know of each other, but for a chance of about 2^-64. The shift brings upper bits down
before the sum, which carries upwards only: without it two flipped signs would cancel. Products would mix better and
take three times as long; they put the lanes together. It guards against accidents, not against an adversary.
"""

from collections.abc import Sequence
from typing import Any

from llvmlite import ir

from lrw_kernels.codegen.loops import loop
from lrw_kernels.codegen.vector import I32, I64, prefetch

ODD = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio, made odd: half of its bits are set, in no pattern
DOWN, UP = 29, 13  # bits
LANES, CHAINS = 8, 4  # vectors of eight words; four independent chains hide the latency of a step
STRIPE = 8 * LANES * CHAINS  # bytes a turn reads
AHEAD = 2048  # bytes: hardware stops asking at the end of a page


def emit_mix(builder: Any, arguments: Sequence[Any]) -> Any:
    """The hash (i64) of `stripes` times STRIPE bytes at `address`, begun with `seed`; the address may be any."""
    address, stripes, seed = arguments
    wide = ir.VectorType(I64, LANES)
    undefined, zeros = ir.Constant(wide, ir.Undefined), ir.Constant(ir.VectorType(I32, LANES), [0] * LANES)
    start = builder.shuffle_vector(builder.insert_element(undefined, seed, I32(0)), undefined, zeros)

    def turn(i: Any, states: list[Any]) -> list[Any]:
        at = builder.add(address, builder.mul(i, I64(STRIPE)))
        for j in range(CHAINS):
            prefetch(builder, builder.add(at, I64(AHEAD + 8 * LANES * j)))
        return [_stirred(builder, state, _load(builder, wide, at, 8 * LANES * j)) for j, state in enumerate(states)]

    result = seed
    for state in loop(builder, stripes, [start] * CHAINS, turn):
        for lane in range(LANES):
            result = mixed(builder, result, builder.extract_element(state, I32(lane)))
    return result


def mixed(builder: Any, state: Any, word: Any) -> Any:
    """The state (i64) after a word, by a product: ((state ^ word) ^ (state ^ word) >> 32) * ODD."""
    both = builder.xor(state, word)
    return builder.mul(builder.xor(both, builder.lshr(both, I64(32))), I64(ODD))


def _stirred(builder: Any, states: Any, words: Any) -> Any:
    """A vector of states after one of words."""
    down, up = (ir.Constant(states.type, [bits] * LANES) for bits in (DOWN, UP))
    both = builder.xor(states, words)
    both = builder.xor(both, builder.lshr(both, down))
    return builder.add(both, builder.shl(both, up))


def _load(builder: Any, kind: Any, address: Any, offset: int) -> Any:
    instruction = builder.load(builder.inttoptr(builder.add(address, I64(offset)), kind.as_pointer()))
    instruction.align = 1
    return instruction
