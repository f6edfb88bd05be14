"""Libraries of several inputs and outputs: a parameter each, by name and number, checked like a single one."""

import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lrw_kernels.aot import abi
from lrw_kernels.aot.abi import Status
from lrw_kernels.aot.emulate import build_example
from lrw_kernels.aot.header import header_text
from lrw_kernels.aot.ports import Port, Ports
from lrw_kernels.aot.targets import find_target
from lrw_kernels.network.graph import Network, Node
from lrw_kernels.network.operators import Binary, Copy
from lrw_kernels.program.assemble import assemble
from verify.programs.exported import ARM, NATIVE, THREADS, Builder, Native, call, case, need
from verify.tolerances import assert_close
from verify.unit.aot.test_consumers import WARNINGS

pytestmark = pytest.mark.slow

INPUTS, OUTPUTS = 3, 3


@pytest.fixture
def several(built: Builder) -> Native:
    need(target=NATIVE)
    return Native(built("several", NATIVE), *case("several").inputs)


def test_ports_say_parameters_nodes_sizes_and_what_they_are_in_torch(built: Builder) -> None:
    made = built("several", ARM)
    assert made.inputs == (
        Port("input_0", "image", (1, 4, 6, 6, 2), "argument image"),
        Port("input_1", "batch_mask", (1, 4, 6, 6, 1), "argument batch['mask']"),
        Port("input_2", "batch_ids", (1, 1, 1, 1, 3), "argument batch['ids']"),
    )
    assert made.outputs == (
        Port("output_0", "head", (1, 4, 6, 6, 4), "result['out']"),
        Port("output_1", "aux", (1, 1, 1, 1, 3), "result['others'][0]"),
        Port("output_2", "output", (1, 4, 6, 6, 1), "result['others'][1]"),
    )
    text = made.header.read_text()
    for port in (*made.inputs, *made.outputs):
        size = "".join(f"[{n}]" for n in port.size)
        assert f" *   {port.name}{' ' * (10 - len(port.name))} float {size}, {port.origin}\n" in text


@pytest.mark.parametrize("which", range(INPUTS + OUTPUTS + 2))
def test_every_buffer_is_checked_before_any_is_written(several: Native, which: int) -> None:
    before = [buffer.copy() for buffer in several.buffers]
    shift = 2 if which < several.outside else 4
    for other, status in ((None, Status.NULL_POINTER), (several.addresses[which] + shift, Status.MISALIGNED_POINTER)):
        addresses = [other if i == which else address for i, address in enumerate(several.addresses)]
        assert several.run(*addresses, None) == several.begin(*addresses) == status
    for buffer, was in zip(several.buffers, before, strict=True):
        np.testing.assert_array_equal(buffer, was)


def test_null_goes_before_misaligned_whichever_comes_first(several: Native) -> None:
    for missing, shifted in ((0, several.outside - 1), (several.outside - 1, 0), (1, several.outside)):
        addresses = [a + 1 if i == shifted else a for i, a in enumerate(several.addresses)]
        given = [None if i == missing else a for i, a in enumerate(addresses)]
        assert several.run(*given, None) == Status.NULL_POINTER


def test_steps_give_the_bits_of_a_run(built: Builder, several: Native) -> None:
    assert several.run(*several.addresses, None) == Status.OK
    one = [y.copy() for y in several.outputs]
    several.forget()
    assert several.begin(*several.addresses) == Status.OK
    steps = int(built("several", NATIVE).header.read_text().split("#define LRW_several_STEPS ")[1].split()[0])
    with ThreadPoolExecutor(2) as pool:
        for step in range(steps):
            list(pool.map(lambda _, s=step: several.step(several.addresses[-1], s), range(2)))
    for y, of in zip(several.outputs, one, strict=True):
        np.testing.assert_array_equal(y, of)


@pytest.mark.parametrize(("compiler", "standard"), [("gcc", "c99"), ("g++", "c++11"), ("aarch64-linux-gnu-gcc", "c99")])
def test_the_header_declares_a_parameter_and_two_sizes_each(
    built: Builder, tmp_path: Path, compiler: str, standard: str
) -> None:
    need(compiler)
    made = built("several", ARM)
    lines = ['#include "lrw_several.h"', '#include "lrw_threads.h"']
    for port in (*made.inputs, *made.outputs):
        for unit, size in (("FLOATS", int(np.prod(port.size))), ("BYTES", 4 * int(np.prod(port.size)))):
            what = f"{port.name.upper()}_{unit}"
            lines.append(f"extern char {what}[LRW_several_{what} == {size} ? 1 : -1];")
    tensors = ", ".join(["const float *"] * INPUTS + ["float *"] * OUTPUTS)
    begin = f"{tensors}, const void *, void *"
    for name, parameters in (("begin", begin), ("run", f"{begin}, const struct lrw_threads *")):
        lines.append(f"extern int (*{name})({parameters}); int (*{name})({parameters}) = lrw_several_{name};")
    source = tmp_path / ("main.cc" if "++" in standard else "main.c")
    source.write_text("\n".join(lines) + "\n")
    folder = made.header.parent
    call(compiler, f"-std={standard}", *WARNINGS, f"-I{folder}", "-c", source, "-o", tmp_path / "main.o")
    assert b"lrw_several_run" in (tmp_path / "main.o").read_bytes()


@pytest.mark.parametrize("source", ["main.c", "lrw_threads.c"])
def test_generated_sources_compile_without_a_warning(built: Builder, tmp_path: Path, source: str) -> None:
    need("gcc", target=NATIVE)
    folder, product = built("several", NATIVE).manifest.parent, tmp_path / "product.o"
    call("gcc", "-std=c99", "-O2", *WARNINGS, "-Wshadow", "-Wconversion", "-c", folder / source, "-o", product)
    assert product.stat().st_size > 0


def test_the_example_takes_a_file_for_each(built: Builder, tmp_path: Path) -> None:
    need(target=NATIVE)
    made = built("several", NATIVE)
    program = build_example(made, tmp_path)
    for x, port in zip(case("several").inputs, made.inputs, strict=True):
        (tmp_path / port.name).write_bytes(x.tobytes())
    names = [port.name for port in (*made.inputs, *made.outputs)]

    def status(*arguments: object) -> int:
        return subprocess.run([str(program), *map(str, arguments)], cwd=tmp_path, check=False).returncode

    assert status(made.weights, *names[:-1]) == 11
    assert status(made.weights, names[0], "none", *names[2:]) == 14
    assert status(made.weights, names[0], names[0], *names[2:]) == 14, "a file of another size"
    assert status(made.weights, *names[:-1], "no/such/folder") == 16
    assert status(made.weights, *names, THREADS + 1) == Status.BAD_THREADS
    assert status(made.weights, *names, 2) == 0
    for port, (exact, tolerance) in zip(made.outputs, case("several").expected, strict=True):
        y = np.fromfile(tmp_path / port.name, np.float32).reshape(port.size)
        assert_close(y, exact, tolerance, port.name)


def sums(name: str, *origins: str) -> Network:
    """a + b, and a again."""
    size = (1, 1, 1, 1, 3)
    nodes = (Node("sum", Binary("add"), ("a", "b"), size), Node("again", Copy(), ("a",), size))
    return Network(name, {"a": size, "b": size}, nodes, ("sum", "again"), origins)


@pytest.mark.parametrize("origin", ["a */ b", "/* a", "größe ∑ \ud800", "a\nb", "a \\", "??/", "%s {name}", "// a"])
def test_no_origin_ends_the_comment_it_stands_in(origin: str, tmp_path: Path) -> None:
    need("gcc")
    network = sums("odd", *[origin] * 4)
    target = find_target(NATIVE)
    (tmp_path / "lrw_odd.h").write_text(header_text(assemble(network, target.machine), Ports.of(network), target))
    (tmp_path / "main.c").write_text('#include "lrw_odd.h"\nint code = LRW_odd_INPUT_1_BYTES;\n')
    call("gcc", "-std=c99", *WARNINGS, "-c", "main.c", "-o", "main.o", cwd=tmp_path)
    assert (tmp_path / "lrw_odd.h").read_bytes().isascii()


def test_a_network_that_says_nothing_of_its_origin_has_ports_without() -> None:
    assert [port.origin for port in Ports.of(sums("net")).every] == [""] * 4
    with pytest.raises(ValueError, match="network: 1 origins; accepted are none, or those of 2 inputs and 2 outputs"):
        sums("net", "a")
    with pytest.raises(ValueError, match="network: its output 'sum' is there twice"):
        replace(sums("net"), outputs=("sum", "sum"))


@pytest.mark.parametrize("count", [1, 2, 12])
def test_no_macro_of_a_buffer_is_a_status(count: int) -> None:
    names = [*abi.parameters("input", count), *abi.parameters("output", count)]
    assert len({*names}) == 2 * count
    ends = tuple(f"_{abi.port_size(name, unit)}" for name in names for unit in abi.PORT_SIZES)
    assert not any(f"LRW_{status.name}".endswith(ends) for status in Status)
