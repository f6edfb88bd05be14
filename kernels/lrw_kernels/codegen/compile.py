"""A kernel's Python function to an object of this machine: Numba to LLVM IR, LLVM to the object.

Arguments are texts: "int64", or "float64 5 C" for an array of so many axes in C order ("A": any).
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib import import_module
from typing import Any

from lrw_kernels.codegen.settings import own_settings

ENTRY = "lrw_kernel"


def compile_object(make: Callable[[], Callable[..., None]], arguments: Sequence[str]) -> bytes:
    """The object of the function that `make` gives. Its function ENTRY takes only int64: integers as they are, of an
    array the numbers `_kinds` lists."""
    binding, machine = llvm()
    with own_settings():
        name, text = numba_ir(make(), arguments)
    kinds = [kind for argument in arguments for kind in _kinds(argument)]
    entry = caller(ENTRY, name, kinds, 'nounwind "no-builtins"')
    module = binding.parse_assembly(text.replace(" {\n", ' "no-builtins" {\n') + entry)
    module.verify()
    _hide_others(module)
    data: bytes = machine.emit_object(module)
    return data


def numba_ir(function: Callable[..., None], arguments: Sequence[str]) -> tuple[str, str]:
    """Name and LLVM IR of a kernel's function, callees included, under the settings that Numba has now."""
    # Any: Numba says that it is typed, but is not.
    compiler: Any = import_module("numba.core.compiler")
    types: Any = import_module("numba.core.types")
    target: Any = import_module("numba.core.registry").cpu_target
    flags = compiler.Flags()
    flags.error_model = "numpy"
    flags.nrt = False  # callees inherit it: no reference counts anywhere
    flags.no_cpython_wrapper = flags.no_cfunc_wrapper = flags.no_compile = True
    contexts = target.typing_context, target.target_context
    taken = tuple(_numba_type(types, text) for text in arguments)
    result = compiler.compile_extra(*contexts, function, taken, types.void, flags, {})
    with import_module("numba.core.compiler_lock").global_compiler_lock:
        result.library.finalize()
    return result.fndesc.llvm_func_name, result.library.get_llvm_str()


@lru_cache(maxsize=1)
def llvm() -> tuple[Any, Any]:
    """llvmlite's binding and the machine it compiles for: this one."""
    binding: Any = import_module("llvmlite.binding")
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    target = binding.Target.from_default_triple()
    features = binding.get_host_cpu_features().flatten()
    machine = target.create_target_machine(
        cpu=binding.get_host_cpu_name(), features=features, opt=3, reloc="pic", codemodel="small"
    )
    return binding, machine


def _hide_others(module: Any) -> None:
    """Names of Numba's own count what the process compiled before: without them equal kernels are equal objects."""
    for i, value in enumerate([*module.functions, *module.global_variables]):
        if not value.is_declaration and value.name != ENTRY:
            value.linkage, value.name = "internal", f"lrw.{i}"


def _numba_type(types: Any, text: str) -> Any:
    element, *array = text.split()
    number = getattr(types, element)
    return types.Array(number, int(array[0]), array[1]) if array else number


def caller(name: str, function: str, kinds: Sequence[str], attributes: str) -> str:
    """The IR of a function `name` of int64s that calls Numba's `function`, with pointers where `kinds` says "ptr".

    Numba's own status is dropped: what is compiled here cannot raise.
    """
    taken = ", ".join(f"i64 %a{i}" for i in range(len(kinds)))
    pointers = [f"  %p{i} = inttoptr i64 %a{i} to ptr\n" for i, kind in enumerate(kinds) if kind == "ptr"]
    passed = ", ".join(f"ptr %p{i}" if kind == "ptr" else f"i64 %a{i}" for i, kind in enumerate(kinds))
    return f"""
define void @{name}({taken}) {attributes} {{
  %result = alloca ptr
  %exception = alloca ptr
{"".join(pointers)}  call i32 @"{function}"(ptr %result, ptr %exception, {passed})
  ret void
}}
"""


def _kinds(text: str) -> list[str]:
    """The kinds Numba takes an argument apart into: for an array two owners, the count of numbers, bytes of one,
    data, sizes, strides."""
    _, *array = text.split()
    return ["ptr", "ptr", "i64", "i64", "ptr", *["i64"] * (2 * int(array[0]))] if array else ["i64"]
