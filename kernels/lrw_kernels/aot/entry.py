"""The C functions of a library as LLVM IR, around kernels: what they check, the order of steps, the constants."""

from struct import iter_unpack

from lrw_kernels.aot import abi, ir
from lrw_kernels.aot.abi import Status
from lrw_kernels.aot.code import Code
from lrw_kernels.aot.targets import Target
from lrw_kernels.aot.weighed import DIGEST, DIGEST_ARGUMENTS, weight_checks
from lrw_kernels.codegen.records import Region

BEGIN, WORK = "lrw_begin", "lrw_work"
BEGIN_ARGUMENTS, WORK_ARGUMENTS = 6, 1
REGION_BYTES = len(bytes(Region()))


def kernel_symbol(number: int) -> str:
    """A kernel's name inside the library."""
    return f"lrw_kernel_{number}"


def entry_module(code: Code, target: Target, data_layout: str) -> str:
    """The IR of constants and C functions; kernels, `BEGIN`, `WORK` and `DIGEST` are declared."""
    parts = [
        f'target datalayout = "{data_layout}"\ntarget triple = "{target.triple}"\n',
        _constants(code),
        _declarations(code),
        target.cpu_check,
        weight_checks(code),
        _functions(code),
    ]
    text = "\n".join(parts)
    return text.replace(") {\n", f") {ir.entry_attributes(target)} {{\n")


def _constants(code: Code) -> str:
    functions = ", ".join(f"ptr @{kernel_symbol(i)}" for i in range(len(code.kernels)))
    return f"""
@lrw_image = internal constant {_numbers([n for (n,) in iter_unpack("<q", code.image)])}, align {abi.ALIGNMENT}
@lrw_relocations = internal constant {_numbers(code.relocations)}
@lrw_header = internal constant {_numbers([n for (n,) in iter_unpack("<q", code.header)])}
@lrw_kernels = internal constant [{len(code.kernels)} x ptr] [{functions}]
"""


def _numbers(values: "list[int] | tuple[int, ...]") -> str:
    return f"[{len(values)} x i64] [{', '.join(f'i64 {value}' for value in values)}]"


def _declarations(code: Code) -> str:
    known = [(kernel_symbol(i), kernel.count) for i, kernel in enumerate(code.kernels)]
    known += [(BEGIN, BEGIN_ARGUMENTS), (WORK, WORK_ARGUMENTS), (DIGEST, DIGEST_ARGUMENTS)]
    return "\n".join(f"declare void @{name}({', '.join(['i64'] * count)})" for name, count in known) + "\n"


def _functions(code: Code) -> str:
    return "\n".join([_sizes(code), _check(code), _begin(code), _step(code), _run(code)])


def _sizes(code: Code) -> str:
    """IR of the functions for version and workspace; the version's is weak, so that several networks link into one
    program."""
    return f"""
define weak_odr i32 @{abi.VERSION_SYMBOL}() {{
  ret i32 {abi.ABI_VERSION}
}}

define i64 @{abi.symbol(code.name, "workspace_bytes")}() {{
  ret i64 {code.workspace_bytes}
}}
"""


def _buffers(code: Code) -> str:
    """The parameters that `begin` and `run` share: the caller's buffers, weights, workspace."""
    return ", ".join([*(f"ptr %outside_{i}" for i in range(code.outside)), "ptr %weights", "ptr %workspace"])


def _begin(code: Code) -> str:
    addresses = "".join(
        f"  %place_{i} = getelementptr ptr, ptr %outside, i64 {i}\n  store ptr %outside_{i}, ptr %place_{i}\n"
        for i in range(code.outside)
    )
    return f"""
define i32 @{abi.symbol(code.name, "begin")}({_buffers(code)}) {{
  %outside = alloca [{code.outside} x ptr]
{addresses}\
  %status = call i32 @lrw_check(ptr %outside, ptr %weights, ptr %workspace)
  %refused = icmp ne i32 %status, {Status.OK}
  br i1 %refused, label %done, label %ready
ready:
  %image_at = ptrtoint ptr @lrw_image to i64
  %relocations_at = ptrtoint ptr @lrw_relocations to i64
  %kernels_at = ptrtoint ptr @lrw_kernels to i64
  %outside_at = ptrtoint ptr %outside to i64
  %weights_at = ptrtoint ptr %weights to i64
  %workspace_at = ptrtoint ptr %workspace to i64
  call void @{BEGIN}(i64 %image_at, i64 %relocations_at, i64 %kernels_at, i64 %outside_at, i64 %weights_at,
    i64 %workspace_at)
  br label %done
done:
  ret i32 %status
}}
"""


def _step(code: Code) -> str:
    return f"""
define internal void @lrw_task(ptr %region) {{
  %at = ptrtoint ptr %region to i64
  call void @{WORK}(i64 %at)
  ret void
}}

define void @{abi.symbol(code.name, "step")}(ptr %workspace, i32 %step) {{
  %known = icmp ult i32 %step, {code.step_count}
  br i1 %known, label %work, label %done
work:
  %index = zext i32 %step to i64
  %offset = mul i64 %index, {REGION_BYTES}
  %at = add i64 %offset, {code.regions_at}
  %region = getelementptr i8, ptr %workspace, i64 %at
  call void @lrw_task(ptr %region)
  br label %done
done:
  ret void
}}
"""


def _run(code: Code) -> str:
    """IR of the function `run`; its `threads` points to {i32 count, function, context}: `struct lrw_threads`."""
    return f"""
define i32 @{abi.symbol(code.name, "run")}({_buffers(code)}, ptr %threads) {{
entry:
  %alone = icmp eq ptr %threads, null
  br i1 %alone, label %check, label %several
several:
  %count = load i32, ptr %threads
  %start_at = getelementptr i8, ptr %threads, i64 8
  %start = load ptr, ptr %start_at
  %context_at = getelementptr i8, ptr %threads, i64 16
  %context = load ptr, ptr %context_at
  %fewer = add i32 %count, -1
  %outside = icmp uge i32 %fewer, {code.threads}
  %missing = icmp eq ptr %start, null
  %bad = or i1 %outside, %missing
  br i1 %bad, label %refuse, label %check
refuse:
  ret i32 {Status.BAD_THREADS}
check:
  %workers = phi i32 [ 1, %entry ], [ %count, %several ]
  %function = phi ptr [ null, %entry ], [ %start, %several ]
  %argument = phi ptr [ null, %entry ], [ %context, %several ]
  %status = call i32 @{abi.symbol(code.name, "begin")}({_buffers(code)})
  %refused = icmp ne i32 %status, {Status.OK}
  br i1 %refused, label %done, label %loop
loop:
  %step = phi i64 [ 0, %check ], [ %next, %after ]
  %offset = mul i64 %step, {REGION_BYTES}
  %at = add i64 %offset, {code.regions_at}
  %region = getelementptr i8, ptr %workspace, i64 %at
  %items_at = getelementptr i8, ptr %region, i64 {Region.items.offset}
  %items = load i64, ptr %items_at
  %few = icmp ule i64 %items, 1
  %single = icmp eq i32 %workers, 1
  %serial = or i1 %few, %single
  br i1 %serial, label %by_itself, label %together
by_itself:
  call void @lrw_task(ptr %region)
  br label %after
together:
  call void %function(ptr %argument, i32 %workers, ptr @lrw_task, ptr %region)
  br label %after
after:
  %next = add i64 %step, 1
  %more = icmp ult i64 %next, {code.step_count}
  br i1 %more, label %loop, label %done
done:
  ret i32 %status
}}
"""


def _check(code: Code) -> str:
    """IR of everything `begin` asks of its arguments, a Status; at `outside` lie the addresses of the caller's buffers,
    of which there is at least one."""
    return f"""
define internal i32 @lrw_check(ptr %outside, ptr %weights, ptr %workspace) {{
entry:
  %no_weights = icmp eq ptr %weights, null
  %no_workspace = icmp eq ptr %workspace, null
  %no_memory = or i1 %no_weights, %no_workspace
  br label %each
each:
  %i = phi i64 [ 0, %entry ], [ %next, %each ]
  %missing = phi i1 [ %no_memory, %entry ], [ %any_null, %each ]
  %data = phi i64 [ 0, %entry ], [ %any_data, %each ]
  %place = getelementptr ptr, ptr %outside, i64 %i
  %buffer = load ptr, ptr %place
  %no_buffer = icmp eq ptr %buffer, null
  %any_null = or i1 %missing, %no_buffer
  %buffer_at = ptrtoint ptr %buffer to i64
  %any_data = or i64 %data, %buffer_at
  %next = add i64 %i, 1
  %more = icmp ult i64 %next, {code.outside}
  br i1 %more, label %each, label %all
all:
  br i1 %any_null, label %null, label %align
null:
  ret i32 {Status.NULL_POINTER}
align:
  %weights_at = ptrtoint ptr %weights to i64
  %workspace_at = ptrtoint ptr %workspace to i64
  %data_low = and i64 %any_data, 3
  %memory = or i64 %weights_at, %workspace_at
  %memory_low = and i64 %memory, {abi.ALIGNMENT - 1}
  %low = or i64 %data_low, %memory_low
  %misaligned = icmp ne i64 %low, 0
  br i1 %misaligned, label %refuse, label %processor
refuse:
  ret i32 {Status.MISALIGNED_POINTER}
processor:
  %able = call i1 @lrw_cpu()
  br i1 %able, label %weighed, label %unable
unable:
  ret i32 {Status.UNSUPPORTED_CPU}
weighed:
  %status = call i32 @lrw_check_header(ptr %weights)
  ret i32 %status
}}
"""
