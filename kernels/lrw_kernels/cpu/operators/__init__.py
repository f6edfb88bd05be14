"""The operators of a network besides Winograd convolution, on activations [N, D, H, W, C] in float32.

A builder is a pure function from views of the activations and an operator's attributes to steps: kernels as data,
records, tables (`step`). From the bottom: `polynomials` and `functions` (exp, erf and what is made of them, as vector
code), `emit` and `intrinsics`, the kernels (`*_kernels`), the records, the builders (`direct`, `transposed`, `window`,
`rows`, `norm`, `order`). Kernels neither allocate nor raise nor call anything, so that they also lower to a library
without a runtime; they touch no memory but the views' channels, their tables and the scratch they are given.
"""
