"""The process of `operators.assert_lowers`: kernels to aarch64 objects, each guarded. Takes JSON of [text, count]s."""

import json
import sys

from lrw_kernels.aot.entry import kernel_symbol
from lrw_kernels.aot.lower import emit_kernel, keep_from_this_machine
from lrw_kernels.aot.targets import find_target
from lrw_kernels.codegen.elf import read_elf
from lrw_kernels.codegen.kernel import Kernel

if __name__ == "__main__":
    keep_from_this_machine()
    for text, count in json.loads(sys.argv[1]):
        maker, *arguments = json.loads(text)
        elf = read_elf(emit_kernel(Kernel(maker, tuple(arguments), count), find_target("aarch64-linux-gnu")))
        assert not elf.undefined, f"{maker} needs {sorted(elf.undefined)}"
        assert kernel_symbol(0) in elf.exported
        print("lowered")
