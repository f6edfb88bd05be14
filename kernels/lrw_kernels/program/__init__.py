"""A network as a program: steps, storage, a plan of memory, and the image of records that kernels read."""
