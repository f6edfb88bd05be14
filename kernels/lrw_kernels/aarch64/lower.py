"""A layer to an ELF object, in a child process (`python -m lrw_kernels.aarch64.lower`).

Never in the caller's: Numba reads its settings once, at import, and what it has already compiled there is
bound to that machine.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

from lrw_kernels.aarch64 import ir
from lrw_kernels.aarch64.elf import read_elf
from lrw_kernels.aarch64.spec import LayerSpec
from lrw_kernels.aarch64.targets import Target, find_target

_MESSAGE_LINES = 8


def lower_layer(spec: LayerSpec, target: str = "aarch64-linux-gnu") -> bytes:
    """The ELF object of `spec` for `target`; the same arguments give the same bytes.

    Raises ValueError for an unknown target, RuntimeError with the child's last lines when lowering fails.
    """
    find_target(target)
    with TemporaryDirectory(prefix="lrw-lower-") as folder:
        source, product = Path(folder, "spec.json"), Path(folder, "layer.o")
        source.write_text(spec.to_json())
        status, message = _run_child([str(source), str(product), "--target", target], folder)
        if status != 0:
            raise RuntimeError(f"lowering {spec.name} for {target} gave exit status {status}\n{message}")
        return product.read_bytes()


def _run_child(arguments: list[str], folder: str) -> tuple[int, str]:
    """Exit status and last lines of `main`.

    On any exception, Ctrl-C included, run() kills and reaps the child; but not while it is still starting it,
    nor when this process itself is killed. Then the child's standard input closes, and it leaves by itself.
    """
    command, env = [sys.executable, "-m", __name__, "--leash", *arguments], _environment(folder)
    leash, held = os.pipe()
    try:
        done = subprocess.run(command, cwd=folder, env=env, stdin=leash, capture_output=True, text=True, check=False)
    finally:
        os.close(leash)
        os.close(held)
    return done.returncode, "\n".join(done.stderr.strip().splitlines()[-_MESSAGE_LINES:])


def _environment(folder: str) -> dict[str, str]:
    """The child's: our modules, none of our Numba settings; no optimisation for this machine, a new cache."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA_")}
    return inherited | {
        "NUMBA_OPT": "0",
        "NUMBA_LOOP_VECTORIZE": "0",
        "NUMBA_CPU_NAME": "generic",
        "NUMBA_CPU_FEATURES": "",
        "NUMBA_CACHE_DIR": str(Path(folder, "cache")),
        "PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path),
        "PYTHONHASHSEED": "0",
        "PYTHONWARNINGS": "ignore",  # Numba's, that the fresh cache cannot keep what refers to Python objects
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """The child: read spec.json, write the object."""
    parser = argparse.ArgumentParser(prog="python -m lrw_kernels.aarch64.lower", description=__doc__)
    parser.add_argument("spec", type=Path, help="JSON of a LayerSpec")
    parser.add_argument("object", type=Path, help="ELF object to write")
    parser.add_argument("--target", default="aarch64-linux-gnu")
    parser.add_argument("--leash", action="store_true", help="exit when standard input closes")
    options = parser.parse_args(arguments)
    if options.leash:
        Thread(target=_leave_at_end_of_input, daemon=True).start()
    spec, target = LayerSpec.from_json(options.spec.read_text()), find_target(options.target)
    function, text = numba_ir(spec)
    ir.check_raw(text)
    options.object.write_bytes(emit_object(function, text, spec, target))


def _leave_at_end_of_input() -> None:
    os.read(0, 1)
    os._exit(1)


def numba_ir(spec: LayerSpec) -> tuple[str, str]:
    """Name and unoptimised LLVM IR of the layer function, callees included."""
    from lrw_kernels.aarch64.layer import layer_function

    # Any: Numba says that it is typed, but is not.
    compiler: Any = import_module("numba.core.compiler")
    types: Any = import_module("numba.core.types")
    machine: Any = import_module("numba.core.registry").cpu_target
    flags = compiler.Flags()
    flags.error_model = "numpy"
    flags.nrt = False  # callees inherit it: no reference counts anywhere
    flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
    pointers = (types.CPointer(types.float32),) * 4
    contexts = machine.typing_context, machine.target_context
    result = compiler.compile_extra(*contexts, layer_function(spec), pointers, types.void, flags, {})
    return result.fndesc.llvm_func_name, result.library.get_llvm_str()


def emit_object(function: str, text: str, spec: LayerSpec, target: Target) -> bytes:
    """The guarded object of IR `text`, optimised for `target` in one pass over the closed module."""
    binding: Any = import_module("llvmlite.binding")
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    llvm = binding.Target.from_triple(target.triple)
    # llvmlite's own code model is the JIT's, whose large addresses are no use in a shared library.
    machine = llvm.create_target_machine(cpu=target.cpu, opt=3, reloc="pic", codemodel="default")
    closed = ir.close_module(text, function, spec, target, str(machine.target_data))
    module = binding.parse_assembly(closed)
    module.verify()
    _optimise(binding, module, machine)
    ir.check_final(str(module))
    data: bytes = machine.emit_object(module)
    ir.check_object(read_elf(data), spec, target)
    return data


def _optimise(binding: Any, module: Any, machine: Any) -> None:
    """O3. No fast-math and no contraction: the result is the reference's, bit for bit, on every target.

    No unrolling: every size is a constant, and LLVM would unroll whole transforms. F(4x4x4, 3x3x3) at 64
    channels took 27 s and 99 kB that way instead of 0.6 s and 6 kB, and ran no faster.
    """
    options = binding.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = options.slp_vectorization = options.loop_interleaving = True
    options.loop_unrolling = False
    passes = binding.create_pass_builder(machine, options)
    passes.getModulePassManager().run(module, passes)


if __name__ == "__main__":
    main()
