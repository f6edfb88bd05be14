"""What layers cost on a CPU, beside torch's own convolution: `nox -s bench -- layers`, or `python -m
bench.cpu`."""
