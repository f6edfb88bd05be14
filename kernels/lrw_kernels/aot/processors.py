"""Whether the processor at run time will do: for each kind of target the LLVM IR of `i1 @lrw_cpu()`."""

ANY_CPU = """
define internal i1 @lrw_cpu() {
  ret i1 true
}
"""

# Half precision in vectors and scalars: ASIMDHP and FPHP of AT_HWCAP. Where libc has no getauxval there is none.
HALF_CPU = """
declare extern_weak i64 @getauxval(i64)

define internal i1 @lrw_cpu() {
  %there = icmp ne ptr @getauxval, null
  br i1 %there, label %ask, label %no
ask:
  %features = call i64 @getauxval(i64 16)
  %half = and i64 %features, 1536
  %both = icmp eq i64 %half, 1536
  ret i1 %both
no:
  ret i1 false
}
"""


def _bits(*numbers: int) -> int:
    """The i32 with these bits set, as LLVM writes it: with its sign."""
    bits = sum(1 << number for number in numbers)
    return bits - (1 << 32) if bits >> 31 else bits


# What x86-64-v3 is, for LLVM may use any of it. Leaf 1: SSE3, SSSE3, FMA, CMPXCHG16B, SSE4.1, SSE4.2, MOVBE, POPCNT,
# OSXSAVE, AVX, F16C. Leaf 7: BMI1, AVX2, BMI2. Leaf 0x80000001: LAHF, LZCNT. And an operating system that saves the
# vector registers, which only a processor with OSXSAVE can be asked. x86-64-v4 is that and AVX512F, DQ, CD, BW, VL,
# whose masks and upper registers are saved too.
_LEAF_1, _EXTENDED = (0, 9, 12, 13, 19, 20, 22, 23, 27, 28, 29), (0, 5)
_V3_LEAF_7, _V3_SAVED = (3, 5, 8), (1, 2)
_V4_LEAF_7, _V4_SAVED = (*_V3_LEAF_7, 16, 17, 28, 30, 31), (*_V3_SAVED, 5, 6, 7)
_CPUID = 'call { i32, i32, i32, i32 } asm sideeffect "cpuid", "={ax},={bx},={cx},={dx},{ax},{cx}"'


def _x86_64(leaf_1: int, leaf_7: int, extended: int, saved: int) -> str:
    return f"""
define internal i1 @lrw_cpu() {{
  %one = {_CPUID}(i32 1, i32 0)
  %one_c = extractvalue {{ i32, i32, i32, i32 }} %one, 2
  %one_has = and i32 %one_c, {leaf_1}
  %first = icmp eq i32 %one_has, {leaf_1}
  br i1 %first, label %more, label %no
more:
  %seven = {_CPUID}(i32 7, i32 0)
  %seven_b = extractvalue {{ i32, i32, i32, i32 }} %seven, 1
  %seven_has = and i32 %seven_b, {leaf_7}
  %second = icmp eq i32 %seven_has, {leaf_7}
  %extended = {_CPUID}(i32 {_bits(0, 31)}, i32 0)
  %extended_c = extractvalue {{ i32, i32, i32, i32 }} %extended, 2
  %extended_has = and i32 %extended_c, {extended}
  %third = icmp eq i32 %extended_has, {extended}
  %saved = call {{ i32, i32 }} asm sideeffect "xgetbv", "={{ax}},={{dx}},{{cx}}"(i32 0)
  %saved_a = extractvalue {{ i32, i32 }} %saved, 0
  %saved_has = and i32 %saved_a, {saved}
  %fourth = icmp eq i32 %saved_has, {saved}
  %instructions = and i1 %second, %third
  %all = and i1 %instructions, %fourth
  ret i1 %all
no:
  ret i1 false
}}
"""


X86_64_V3_CPU, X86_64_V4_CPU = (
    _x86_64(_bits(*_LEAF_1), _bits(*leaf_7), _bits(*_EXTENDED), _bits(*saved))
    for leaf_7, saved in ((_V3_LEAF_7, _V3_SAVED), (_V4_LEAF_7, _V4_SAVED))
)
