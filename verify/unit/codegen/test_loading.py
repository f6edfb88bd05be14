"""Kernels in a process whose free addresses lie far apart: code reaches its constants by offsets of 32 bits."""

import subprocess
import sys

import pytest

FAR_APART = """
import ctypes

from lrw_kernels.codegen.compile import ENTRY, llvm
from lrw_kernels.codegen.compiled import _load, callable_at

binding, machine = llvm()
object_file = machine.emit_object(binding.parse_assembly('''
@constants = internal constant [2 x i64] [i64 3, i64 5]
define void @%s(i64 %%address) {
  %%value = load volatile i64, ptr getelementptr ([2 x i64], ptr @constants, i64 0, i64 1)
  %%where = inttoptr i64 %%address to ptr
  store i64 %%value, ptr %%where
  ret void
}''' % ENTRY))
_load(object_file)  # what LLVM allocates once is allocated

PAGE, NOTHING, PRIVATE_UNBACKED = 4096, 0, 0x4022
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]

def taken(size):
    address = libc.mmap(None, size, NOTHING, PRIVATE_UNBACKED, -1, 0)
    assert address != 2**64 - 1, "no addresses are left"
    return address

pages = [taken(PAGE) for _ in range(20_000)]  # whatever was free above
lowest = min(taken(2**30) for _ in range(6))
while taken(PAGE) > lowest:
    pass
libc.munmap(pages[10_000], PAGE)  # one free page here, all others more than 4 GiB below
kernel, found = callable_at(_load(object_file), 1), ctypes.c_int64()
kernel(ctypes.addressof(found))
assert found.value == 5
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs mmap as Linux has it")
def test_code_and_constants_of_a_kernel_lie_together() -> None:
    done = subprocess.run([sys.executable, "-c", FAR_APART], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
