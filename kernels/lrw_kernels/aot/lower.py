"""A library's code becomes an object file, in a child process (`python -m lrw_kernels.aot.lower`).

Never in the caller's: Numba reads its settings once, at import, and what it has already compiled there is
bound to that machine.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

from lrw_kernels.aot import entry, ir
from lrw_kernels.aot.code import Code
from lrw_kernels.aot.guard import check_object
from lrw_kernels.aot.targets import Target, find_target
from lrw_kernels.aot.weighed import DIGEST, DIGEST_ARGUMENTS
from lrw_kernels.codegen.compile import numba_ir
from lrw_kernels.codegen.kernel import WORK_KERNEL, Kernel

_MESSAGE_LINES = 8


def lower(code: Code, target: str = "aarch64-linux-gnu") -> bytes:
    """The object file of `code` for `target`; the same arguments give the same bytes.

    Raises ValueError for an unknown target, RuntimeError with the child's last lines when lowering fails.
    """
    find_target(target)
    with TemporaryDirectory(prefix="lrw-lower-") as folder:
        source, product = Path(folder, "code.json"), Path(folder, "network.o")
        _put(source, code.to_json())
        status, message = _run_child([str(source), str(product), "--target", target], folder)
        if status != 0:
            raise RuntimeError(f"lowering {code.name} for {target} gave exit status {status}\n{message}")
        return product.read_bytes()


def _put(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        error.filename = str(path)  # a full disk does not say which
        raise


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
    """The child's environment: our modules, none of our Numba settings, no optimisation for this machine."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA_")}
    return inherited | {
        "NUMBA_OPT": "0",
        "NUMBA_LOOP_VECTORIZE": "0",
        "NUMBA_CPU_NAME": "generic",
        "NUMBA_CPU_FEATURES": "",
        "PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path),
        "PYTHONHASHSEED": "0",
        "PYTHONWARNINGS": "ignore",
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """The child: read code.json, write the object."""
    parser = argparse.ArgumentParser(prog="python -m lrw_kernels.aot.lower", description=__doc__)
    parser.add_argument("code", type=Path, help="JSON of a Code")
    parser.add_argument("object", type=Path, help="object file to write")
    parser.add_argument("--target", default="aarch64-linux-gnu")
    parser.add_argument("--leash", action="store_true", help="exit when standard input closes")
    options = parser.parse_args(arguments)
    if options.leash:
        Thread(target=_leave_at_end_of_input, daemon=True).start()
    code, target = Code.from_json(options.code.read_text()), find_target(options.target)
    options.object.write_bytes(emit_object(code, target))


def keep_from_this_machine() -> None:
    """Keep Numba, from here on, to making IR: no machine code for this process.

    Nobody would call it, making it takes longer than all the rest, and half precision this machine may not have.
    """
    codegen: Any = import_module("numba.core.codegen")
    context: Any = import_module("numba.core.registry").cpu_target.target_context

    def no_executable(library: Any, *_: Any) -> Any:
        library._ensure_finalized()
        return [].append  # Numba's dispatchers ask for a callable of their own

    codegen.JITCPUCodegen._add_module = lambda self, module: None
    codegen.JITCodeLibrary._finalize_specific = lambda self: None
    context.get_executable = no_executable


def _leave_at_end_of_input() -> None:
    os.read(0, 1)
    os._exit(1)


def emit_object(code: Code, target: Target) -> bytes:
    """The guarded object of all kernels and the C functions, optimised for `target` as one closed module."""
    binding, machine = _machine(target)
    layout = str(machine.target_data)
    keep_from_this_machine()
    module = binding.parse_assembly(entry.entry_module(code, target, layout))
    for name, function, arguments in _functions(code):
        text = _closed(name, function, arguments, target, layout)
        module.link_in(binding.parse_assembly(text))
        module.get_function(name).linkage = "internal"
    data = _emitted(binding, module, machine)
    check_object(data, code.name, target)
    return data


def emit_kernel(kernel: Kernel, target: Target) -> bytes:
    """The object of one kernel as its only function, named as that of number 0; guarded in what it is made of."""
    binding, machine = _machine(target)
    text = _closed(entry.kernel_symbol(0), kernel.function(), kernel.count, target, str(machine.target_data))
    return _emitted(binding, binding.parse_assembly(text), machine)


def _machine(target: Target) -> tuple[Any, Any]:
    """llvmlite's binding, and the machine it compiles for."""
    binding: Any = import_module("llvmlite.binding")
    # Loop strength reduction counts addresses from the end of what a loop reads, out of NEON offsets' reach.
    binding.set_option("lrw", "-disable-lsr")
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    binding.initialize_native_asmparser()  # for the inline program of `targets`
    llvm = binding.Target.from_triple(target.triple)
    # llvmlite's own code model is the JIT's, whose large addresses are no use in a shared library.
    features = target.features
    machine = llvm.create_target_machine(cpu=target.cpu, features=features, opt=3, reloc="pic", codemodel="default")
    return binding, machine


def _emitted(binding: Any, module: Any, machine: Any) -> bytes:
    module.verify()
    _optimise(binding, module, machine)
    ir.check_final(str(module))
    data: bytes = machine.emit_object(module)
    return data


def _functions(code: Code) -> list[tuple[str, Callable[..., None], int]]:
    """Name, function and number of arguments of everything Numba compiles."""
    from lrw_kernels.aot import kernels

    sizes = (len(code.image), len(code.relocations), code.zero_bytes, code.buffers_at)
    return [
        *((entry.kernel_symbol(i), kernel.function(), kernel.count) for i, kernel in enumerate(code.kernels)),
        (entry.WORK, WORK_KERNEL.function(), entry.WORK_ARGUMENTS),
        (entry.BEGIN, kernels.begin_function(sizes), entry.BEGIN_ARGUMENTS),
        (DIGEST, kernels.digest_function(), DIGEST_ARGUMENTS),
    ]


def _closed(name: str, function: Callable[..., None], arguments: int, target: Target, layout: str) -> str:
    compiled, text = numba_ir(function, ("int64",) * arguments)
    ir.check_raw(text, target.vector_bits)
    return ir.wrapped(ir.close_module(text, target, layout), compiled, name, arguments, target)


def _optimise(binding: Any, module: Any, machine: Any) -> None:
    """Optimise `module` at O3 without fast-math: kernels fuse what they want fused, and all targets give the same.

    No unrolling: kernels are straight-line where it pays.
    """
    options = binding.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = options.slp_vectorization = options.loop_interleaving = True
    options.loop_unrolling = False
    passes = binding.create_pass_builder(machine, options)
    passes.getModulePassManager().run(module, passes)


if __name__ == "__main__":
    main()
