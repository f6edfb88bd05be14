"""A new process up to its first accelerated pass, as a line of JSON: `python -m bench.first_call`.

Nothing is imported before it is timed. Exit code 1, and a line, where what comes out is not what torch computes.
"""

import json
import sys
from time import perf_counter

NETWORK = "C3D"  # of this package: nothing else need be installed
RTOL = 1e-4  # of the largest output: what lrw.accelerate keeps to


def main() -> int:
    """Time the imports, `accelerate` and a pass, all in seconds; then look whether the pass was right."""
    begin = perf_counter()
    import torch

    torch_s, begin = perf_counter() - begin, perf_counter()
    import lrw

    lrw_s = perf_counter() - begin
    from bench import gate, layers

    torch.manual_seed(0)
    network = next(network for network in layers.NETWORKS if network.name == NETWORK)
    net, x = network.make().eval(), torch.randn(network.shape)
    with torch.inference_mode():
        begin = perf_counter()
        y = lrw.accelerate(net, x)(x)
        call_s = perf_counter() - begin
        expected = net(x).double()
    try:
        error = gate.judged(f"{NETWORK} in a new process", y, expected, RTOL * float(expected.abs().max())).largest
    except gate.Red as red:
        print(red, file=sys.stderr)
        return 1
    print(json.dumps({"torch_s": torch_s, "lrw_s": lrw_s, "call_s": call_s, "error": error}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
