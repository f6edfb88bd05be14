"""What a convolution costs on ARM, judged without ARM hardware, ours beside its peers: `nox -s bench_arm`.

Instructions are counted exactly, under QEMU (`counter.c`); cycles are modelled from the executed blocks by LLVM
(`cycles`), cache misses by a small model of two levels (`cache.c`). None of it is a time: memory bandwidth,
prefetchers, clock frequency and more than one core are not in it. Data flows one way: layers -> programs (`ours`,
`peers`, on `data`) -> emulator -> cycles -> rows (`measure`, `rows`) -> tables and a CSV.
"""
