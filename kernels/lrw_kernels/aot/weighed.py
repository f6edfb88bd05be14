"""What a library's C functions ask of the weights, as LLVM IR: their header at every run, their checksum when asked."""

from lrw_kernels.aot import abi
from lrw_kernels.aot.abi import Status
from lrw_kernels.aot.code import Code
from lrw_kernels.aot.weights import HEADER_BYTES

DIGEST, DIGEST_ARGUMENTS = "lrw_digest", 3
DIGEST_NUMBERS = 80  # of its scratch
DIGEST_AT = 24  # in the header


def weight_checks(code: Code) -> str:
    """`lrw_check_header`, a Status of the weights' first bytes, and the function `check_weights`; `DIGEST` is declared
    elsewhere."""
    return "\n".join([_CHECK_HEADER, _check_weights(code), _SAME_SUM])


def _check_weights(code: Code) -> str:
    size = int.from_bytes(code.header[16:24], "little")
    return f"""
define i32 @{abi.symbol(code.name, "check_weights")}(ptr %weights, i64 %bytes) {{
  %null = icmp eq ptr %weights, null
  br i1 %null, label %no_weights, label %sized
no_weights:
  ret i32 {Status.NULL_POINTER}
sized:
  %at = ptrtoint ptr %weights to i64
  %low = and i64 %at, {abi.ALIGNMENT - 1}
  %misaligned = icmp ne i64 %low, 0
  br i1 %misaligned, label %not_aligned, label %aligned
not_aligned:
  ret i32 {Status.MISALIGNED_POINTER}
aligned:
  %too_few = icmp ult i64 %bytes, {size}
  br i1 %too_few, label %short, label %processor
short:
  ret i32 {Status.SHORT_WEIGHTS}
processor:
  %able = call i1 @lrw_cpu()
  br i1 %able, label %head, label %unable
unable:
  ret i32 {Status.UNSUPPORTED_CPU}
head:
  %status = call i32 @lrw_check_header(ptr %weights)
  %wrong = icmp ne i32 %status, {Status.OK}
  br i1 %wrong, label %not_ours, label %sum
not_ours:
  ret i32 %status
sum:
  %scratch = alloca [{DIGEST_NUMBERS} x i64]
  %payload = add i64 %at, {HEADER_BYTES}
  %scratch_at = ptrtoint ptr %scratch to i64
  call void @{DIGEST}(i64 %payload, i64 {size - HEADER_BYTES}, i64 %scratch_at)
  %result = call i32 @lrw_same_sum(ptr %scratch, ptr %weights)
  ret i32 %result
}}
"""


_CHECK_HEADER = f"""
define internal i32 @lrw_check_header(ptr %weights) {{
entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
  %differ = phi i64 [ 0, %entry ], [ %any, %loop ]
  %theirs_at = getelementptr i64, ptr %weights, i64 %i
  %ours_at = getelementptr i64, ptr @lrw_header, i64 %i
  %theirs = load i64, ptr %theirs_at
  %ours = load i64, ptr %ours_at
  %difference = xor i64 %theirs, %ours
  %any = or i64 %differ, %difference
  %next = add i64 %i, 1
  %more = icmp ult i64 %next, {HEADER_BYTES // 8}
  br i1 %more, label %loop, label %done
done:
  %wrong = icmp ne i64 %any, 0
  %status = select i1 %wrong, i32 {Status.WRONG_WEIGHTS}, i32 {Status.OK}
  ret i32 %status
}}
"""

# The digest's words, as numbers of 8 bytes, against the header's, big-endian words of 4.
_SAME_SUM = f"""
define internal i32 @lrw_same_sum(ptr %scratch, ptr %weights) {{
entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
  %differ = phi i64 [ 0, %entry ], [ %any, %loop ]
  %word_at = getelementptr i64, ptr %scratch, i64 %i
  %word = load i64, ptr %word_at
  %narrow = trunc i64 %word to i32
  %stored = call i32 @llvm.bswap.i32(i32 %narrow)
  %skip = shl i64 %i, 2
  %expected_at = getelementptr i8, ptr %weights, i64 {DIGEST_AT}
  %expected_word = getelementptr i8, ptr %expected_at, i64 %skip
  %expected = load i32, ptr %expected_word, align 4
  %difference = xor i32 %stored, %expected
  %wide = zext i32 %difference to i64
  %any = or i64 %differ, %wide
  %next = add i64 %i, 1
  %more = icmp ult i64 %next, 8
  br i1 %more, label %loop, label %summed
summed:
  %damaged = icmp ne i64 %any, 0
  %result = select i1 %damaged, i32 {Status.DAMAGED_WEIGHTS}, i32 {Status.OK}
  ret i32 %result
}}

declare i32 @llvm.bswap.i32(i32)
"""
