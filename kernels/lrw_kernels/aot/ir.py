"""Numba's LLVM IR, as text, made into closed modules for another machine; and the guards around that.

Pure text work: no Numba, no LLVM, so that every rule here can be tested on a few lines.
"""

import re

from lrw_kernels.aot.targets import Target
from lrw_kernels.codegen.compile import caller

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


def check_raw(text: str, vector_bits: int = 128) -> None:
    """Raise RuntimeError when Numba's IR is optimised for the build machine, or in need of Python.

    The widest vectors a kernel itself uses have `vector_bits`.
    """
    _check(text, _RAW_FORBIDDEN)
    for match in _VECTOR.finditer(text):
        bits = int(match.group(1)) * (_ELEMENT_BITS.get(match.group(2)) or int(match.group(3)))
        if bits > vector_bits:
            raise RuntimeError(f"IR guard: found {match.group()}: code bound to the build machine")


def check_final(text: str) -> None:
    """Raise RuntimeError when optimised IR still refers to this process or can raise."""
    _check(text, _FINAL_FORBIDDEN)


def attributes(target: Target) -> str:
    """The attributes of every function: no unwinding, no loops made into memset, scheduled for `tune`."""
    return f'nounwind "no-builtins" "tune-cpu"="{target.tune}"'


def entry_attributes(target: Target) -> str:
    """The attributes of the C functions, which ask whether the processor will do: they run on any, and what is not for
    any stays out of them."""
    return f'{attributes(target)} "target-cpu"="{target.entry_cpu}" "target-features"=""'


def close_module(text: str, target: Target, data_layout: str) -> str:
    """`text` for `target`, with everything internal.

    Raises RuntimeError when the text has no data layout, triple or function to replace.
    """
    text = _replace(r'^target datalayout = ".*"$', f'target datalayout = "{data_layout}"', text)
    text = _replace(r'^target triple = ".*"$', f'target triple = "{target.triple}"', text)
    text = _replace(rf"^define {_LINKAGE}", "define internal ", text)
    text = re.sub(rf"^(@\S+ = ){_LINKAGE}(global|constant) ", r"\1internal \2 ", text, flags=re.M)
    text = re.sub(r"^\$.* = comdat any$|,? comdat(?:\(\S+\))?", "", text, flags=re.M)
    return _replace(r"^(define internal .*?)( align \d+)? \{$", rf"\1 {attributes(target)}\2 {{", text)


def wrapped(text: str, function: str, name: str, arguments: int, target: Target) -> str:
    """`text` and a function `name` of so many i64 that calls Numba's `function` in it.

    Numba's own status is dropped: `check_final` makes sure that it is always 0. Raises RuntimeError where there is no
    such function.
    """
    if not re.search(rf'^define internal .*@"?{re.escape(function)}"?\(', text, flags=re.M):
        raise RuntimeError(f"IR guard: Numba's module does not define {function}")
    return text + caller(name, function, ["i64"] * arguments, attributes(target))


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
