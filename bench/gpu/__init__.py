"""What Winograd layers cost on an NVIDIA GPU, beside cuDNN's direct convolution: `nox -s bench_gpu`.

Ceilings of the machine first, a gate on the error before every number, then whole passes, kernels, CUDA graphs, memory
and a training step of a network. Data flows one way: layers -> problems (tensors) -> passes (ours, `direct`'s), judged
by `gate` and timed by `clock` -> rows -> bars, page, and the table that dispatch reads. `floors` says what a pass takes
at least.
"""
