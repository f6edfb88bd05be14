"""The process of `operators.assert_lowers`: kernels to aarch64 objects, each guarded. Takes JSON of [text, count]s."""

import json
import re
import sys
from importlib import import_module
from typing import Any

from lrw_kernels.aot import ir
from lrw_kernels.aot.lower import _optimise
from lrw_kernels.aot.targets import find_target
from lrw_kernels.codegen.elf import read_elf
from lrw_kernels.codegen.kernel import Kernel


def raw_ir(kernel: Kernel) -> tuple[str, str]:
    """Unoptimised IR and the function's name, as it is lowered for another machine."""
    compiler: Any = import_module("numba.core.compiler")
    types: Any = import_module("numba.core.types")
    target: Any = import_module("numba.core.registry").cpu_target
    flags = compiler.Flags()
    flags.error_model = "numpy"
    flags.nrt = False
    flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
    contexts = target.typing_context, target.target_context
    result = compiler.compile_extra(*contexts, kernel.function(), (types.int64,) * kernel.count, types.void, flags, {})
    return str(result.library.get_llvm_str()), result.fndesc.llvm_func_name


def lower(kernel: Kernel) -> None:
    """Raises where a guard does."""
    binding: Any = import_module("llvmlite.binding")
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    target = find_target("aarch64-linux-gnu")
    llvm = binding.Target.from_triple(target.triple)
    machine = llvm.create_target_machine(cpu=target.cpu, opt=3, reloc="pic", codemodel="default")
    text, name = raw_ir(kernel)
    ir.check_raw(text)
    text = re.sub(r'^target datalayout = ".*"$', f'target datalayout = "{machine.target_data}"', text, flags=re.M)
    text = re.sub(r'^target triple = ".*"$', f'target triple = "{target.triple}"', text, flags=re.M)
    text = re.sub(r"^define linkonce_odr ", "define internal ", text, flags=re.M).replace(" {\n", ' "no-builtins" {\n')
    module = binding.parse_assembly(text)
    module.verify()
    _optimise(binding, module, machine)
    ir.check_final(str(module))
    elf = read_elf(machine.emit_object(module))
    assert not elf.undefined, f"{kernel.maker} needs {sorted(elf.undefined)}"
    assert name in elf.exported


if __name__ == "__main__":
    for text, count in json.loads(sys.argv[1]):
        maker, *arguments = json.loads(text)
        lower(Kernel(maker, tuple(arguments), count))
        print("lowered")
