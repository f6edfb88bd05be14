"""How code is made, kept and run: LLVM IR, Numba to IR, objects on disk, machines, memory, threads."""
