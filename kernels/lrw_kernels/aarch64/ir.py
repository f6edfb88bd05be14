"""Numba's LLVM IR, as text, made into a closed module for another machine; and the guards around that.

Pure text work: no Numba, no LLVM, so that every rule here can be tested on a few lines.
"""

import re

from lrw_kernels.aarch64 import abi
from lrw_kernels.aarch64.elf import Elf
from lrw_kernels.aarch64.spec import LayerSpec
from lrw_kernels.aarch64.targets import Target

# What the object may take from elsewhere: nothing. `no-builtins` keeps LLVM from making loops into memset.
ALLOWED_UNDEFINED: frozenset[str] = frozenset()

_VECTOR = re.compile(r"<(?:vscale x )?(\d+) x (half|float|double|ptr|i(\d+))>")
_LINKAGE = (
    r"(?:(?:linkonce|linkonce_odr|weak|weak_odr|common|internal|private|hidden|dso_local|"
    r"unnamed_addr|local_unnamed_addr) )*"
)
_ELEMENT_BITS = {"half": 16, "float": 32, "double": 64, "ptr": 64}
_RAW_FORBIDDEN = {
    r"llvm\.x86\.\w*": "an instruction of the build machine",
    r'@"?NRT_\w*': "Numba's runtime (an array is allocated or counted)",
    r'@"?_?Py[A-Z]\w*': "the Python interpreter",
    r'@"?numba_\w*': "Numba's runtime",
    r'"target-(?:cpu|features)"="[^"]*"': "code bound to the build machine",
}
_FINAL_FORBIDDEN = {
    r"inttoptr \(i64 \d+ to ptr\)": "an address in the lowering process",
    r"@\.const\.pickle\w+": "a Python exception (the kernel can raise)",
}


def check_raw(text: str) -> None:
    """Raise RuntimeError when Numba's IR is optimised for the build machine, or in need of Python."""
    _check(text, _RAW_FORBIDDEN)
    for match in _VECTOR.finditer(text):
        bits = int(match.group(1)) * (_ELEMENT_BITS.get(match.group(2)) or int(match.group(3)))
        if bits > 128:
            raise RuntimeError(f"IR guard: found {match.group()}: code bound to the build machine")


def check_final(text: str) -> None:
    """Raise RuntimeError when optimised IR still refers to this process or can raise."""
    _check(text, _FINAL_FORBIDDEN)


def check_object(elf: Elf, spec: LayerSpec, target: Target) -> None:
    """Raise RuntimeError unless the file is for `target`, exports the layer's functions and needs nothing."""
    expected, surplus = abi.exported_symbols(spec.name), elf.undefined - ALLOWED_UNDEFINED
    if elf.machine != target.elf_machine:
        raise RuntimeError(f"object guard: ELF machine {elf.machine}, {target.name} is {target.elf_machine}")
    if elf.exported != expected:
        raise RuntimeError(f"object guard: exports {sorted(elf.exported)}, expected {sorted(expected)}")
    if surplus or elf.needed:
        raise RuntimeError(f"object guard: needs {', '.join([*sorted(surplus), *elf.needed])}")


def close_module(text: str, function: str, spec: LayerSpec, target: Target, data_layout: str) -> str:
    """`text` for `target`, with everything internal but three C functions around Numba's `function`.

    Raises RuntimeError when the text has no data layout, triple or such function to replace.
    """
    attributes = f'nounwind "no-builtins" "tune-cpu"="{target.tune}"'
    text = _replace(r'^target datalayout = ".*"$', f'target datalayout = "{data_layout}"', text)
    text = _replace(r'^target triple = ".*"$', f'target triple = "{target.triple}"', text)
    text = _replace(rf"^define {_LINKAGE}", "define internal ", text)
    text = re.sub(rf"^(@\S+ = ){_LINKAGE}(global|constant) ", r"\1internal \2 ", text, flags=re.M)
    text = re.sub(r"^\$.* = comdat any$|,? comdat(?:\(\S+\))?", "", text, flags=re.M)
    text = _replace(r"^(define internal .*?)( align \d+)? \{$", rf"\1 {attributes}\2 {{", text)
    if not re.search(rf'^define internal .*@"?{re.escape(function)}"?\(', text, flags=re.M):
        raise RuntimeError(f"IR guard: Numba's module does not define {function}")
    return text + _entry_points(function, spec, attributes)


def _entry_points(function: str, spec: LayerSpec, attributes: str) -> str:
    """The C functions. Numba's own status is dropped: `check_final` has made sure that it is always 0.

    The version is weak, so that objects of several layers link into one library.
    """
    return f"""
define weak_odr i32 @{abi.VERSION_SYMBOL}() {attributes} {{
  ret i32 {abi.ABI_VERSION}
}}

define i64 @{abi.workspace_symbol(spec.name)}() {attributes} {{
  ret i64 {spec.workspace_bytes}
}}

define i32 @{abi.run_symbol(spec.name)}(ptr %x, ptr %y, ptr %weights, ptr %workspace) {attributes} {{
entry:
  %result = alloca ptr
  %exception = alloca ptr
  %no_x = icmp eq ptr %x, null
  %no_y = icmp eq ptr %y, null
  %no_weights = icmp eq ptr %weights, null
  %no_workspace = icmp eq ptr %workspace, null
  %no_data = or i1 %no_x, %no_y
  %no_buffer = or i1 %no_weights, %no_workspace
  %any_null = or i1 %no_data, %no_buffer
  br i1 %any_null, label %refuse, label %check

check:
  %weights_address = ptrtoint ptr %weights to i64
  %workspace_address = ptrtoint ptr %workspace to i64
  %address = or i64 %weights_address, %workspace_address
  %low = and i64 %address, {abi.ALIGNMENT - 1}
  %aligned = icmp eq i64 %low, 0
  br i1 %aligned, label %work, label %refuse

work:
  %status = call i32 @"{function}"(ptr %result, ptr %exception, ptr %x, ptr %y, ptr %weights, ptr %workspace)
  ret i32 {abi.STATUS_OK}

refuse:
  %code = phi i32 [ {abi.STATUS_NULL}, %entry ], [ {abi.STATUS_MISALIGNED}, %check ]
  ret i32 %code
}}
"""


def _check(text: str, forbidden: dict[str, str]) -> None:
    for pattern, meaning in forbidden.items():
        match = re.search(pattern, text)
        if match:
            raise RuntimeError(f"IR guard: found {match.group()}: {meaning}")


def _replace(pattern: str, replacement: str, text: str) -> str:
    result, count = re.subn(pattern, replacement, text, flags=re.M)
    if count == 0:
        raise RuntimeError(f"IR guard: nothing matches {pattern}")
    return result
