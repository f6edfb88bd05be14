"""The operators of a network besides Winograd convolution, on activations [N, D, H, W, C] in float32.

A builder is a pure function from views of the activations and an operator's attributes to steps: kernels as data,
records, tables (`step`). Each family has a builder and its kernels: `convolution` and `depthwise` (on the outputs of a
`grid`; `taps` has a sum's order; `transposed` is made of them), `pool`, `resample`, `rows`, `norm`; `order` moves
matrices. Vector code is in `emit_windows` and `emit_rows`, with the functions of numbers in `functions` and
`polynomials`; `intrinsics` is the door to it. Kernels neither allocate nor raise nor call anything, so that they also
lower to a library without a runtime; they touch no memory but the views' channels, their tables and the scratch they
are given.
"""
