"""What can be said of a node before it becomes steps: for manifests and reports."""

from typing import Any

from lrw_kernels.network.graph import Node
from lrw_kernels.network.operators import Binary, Direct, Followed, Linear, Normalise, Transposed, Winograd


def described(node: Node) -> dict[str, Any]:
    """Name, operator, the nodes it reads and the size it gives; of a convolution its geometry, and what is fused
    to it.

    residual: the node whose activations are added, or None. after: the function that follows, or None.
    """
    operator = node.operator
    entry: dict[str, Any] = {"name": node.name, "operator": type(operator).__name__}
    entry |= {"inputs": [*node.inputs], "size": [*node.size]}
    if isinstance(operator, Direct | Transposed):
        geometry = {what: [*getattr(operator, what)] for what in ("stride", "padding", "dilation")}
        entry |= {"kernel": [*operator.weight.shape[:3]], **geometry, "groups": operator.groups}
    if isinstance(operator, Winograd):
        entry |= {"tile": str(operator.tile), "padding": [*operator.padding]}
    if isinstance(operator, Winograd | Direct | Transposed | Linear | Normalise):
        entry["residual"] = node.inputs[1] if len(node.inputs) > 1 else None
    if isinstance(operator, Binary):
        entry["kind"] = operator.kind
    if isinstance(operator, Followed):
        entry["after"] = None if operator.after is None else operator.after.function
    return entry
