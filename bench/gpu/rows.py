"""What is written down: a row for each figure, with what it is a figure of."""

from dataclasses import dataclass

from bench import rows
from lrw_kernels.triton.precision import Precision

PRECISIONS: tuple[Precision, ...] = ("half", "tf32", "ieee")
"""bfloat16, float32 with TF32 products, float32."""


@dataclass(frozen=True)
class Row(rows.Row):
    """One figure, or why there is none.

    kind: ceiling; forward, input_grad, weight_grad: whole passes in a stream of calls; graph, graph_input_grad,
    graph_weight_grad: those in CUDA graphs; training: all three, with weights that are transformed; kernel: one of a
    pass; memory: a training step of the layer; step: of a network. columns: share kept. ms, low, high: median, 20 % and
    80 % quantiles; cudnn_ms: median of direct convolution in its faster form; floor_ms: the least a pass could take
    (see `floors`); rate: bytes or operations a second; error: over the size of the result, both as norms; mib: peak
    memory.
    """

    kind: str
    layer: str = ""
    precision: str = ""
    cin: int | None = None
    cout: int | None = None
    size: str = ""
    batch: int | None = None
    tile: str = ""
    columns: float | None = None
    form: str = ""
    ms: float | None = None
    low: float | None = None
    high: float | None = None
    cudnn_ms: float | None = None
    cudnn_form: str = ""
    speedup: float | None = None
    floor_ms: float | None = None
    rate: float | None = None
    error: float | None = None
    mib: float | None = None
    cudnn_mib: float | None = None
    note: str = ""

    @property
    def failed(self) -> bool:
        """Whether it has a reason instead of numbers of ours that it should have."""
        return bool(self.note)

    @property
    def line(self) -> str:
        """The row for people."""
        what = " ".join(word for word in (self.kind, self.layer, self.precision, self.tile[2:7], self.form) if word)
        share = "" if self.columns is None else f" {self.columns:.0%}"
        numbers = [(self.ms, ".3f", " ms"), (self.cudnn_ms, ".3f", " ms cuDNN"), (self.speedup, ".2f", "x"),
                   (self.floor_ms, ".3f", " ms floor"), (self.rate, ".3g", "/s"),
                   (self.error, ".1e", " error"), (self.mib, ".0f", " MiB"),
                   (self.cudnn_mib, ".0f", " MiB cuDNN")]  # fmt: skip
        shown = [f"{value:{form}}{unit}" for value, form, unit in numbers if value is not None]
        return ", ".join([what + share, *shown, *([self.note] if self.note else [])])
