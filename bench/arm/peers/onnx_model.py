"""One convolution as an ONNX file, for the peers that read nothing else: a protocol buffer is easily written."""

from bench.arm.program import Floats
from bench.layers import Layer

_FLOAT, _INTS = 1, 7  # element type of a tensor, type of an attribute
_OPSET, _IR = 13, 8


def conv3d_model(layer: Layer, weight: Floats) -> bytes:
    """The model y = conv3d(x, weight) of `layer`; weight [Cout, Cin, 3, 3, 3], x and y [1, C, D, H, W]."""
    numbers = {"kernel_shape": [3] * 3, "pads": [1] * 6, "strides": [1] * 3}
    attributes = b"".join(_field(5, _attribute(name, values)) for name, values in numbers.items())
    node = _field(1, "x") + _field(1, "w") + _field(2, "y") + _field(4, "Conv") + attributes
    graph = _field(1, node) + _field(2, "layer") + _field(5, _tensor("w", weight))
    graph += _field(11, _value("x", [1, layer.cin, *layer.size])) + _field(
        12, _value("y", [1, layer.cout, *layer.size])
    )
    return _field(1, _IR) + _field(7, graph) + _field(8, _field(1, "") + _field(2, _OPSET))


def _attribute(name: str, values: list[int]) -> bytes:
    return _field(1, name) + b"".join(_field(8, value) for value in values) + _field(20, _INTS)


def _tensor(name: str, values: Floats) -> bytes:
    shape = b"".join(_field(1, size) for size in values.shape)
    return shape + _field(2, _FLOAT) + _field(8, name) + _field(9, values.astype("<f4").tobytes())


def _value(name: str, shape: list[int]) -> bytes:
    sizes = b"".join(_field(1, _field(1, size)) for size in shape)
    return _field(1, name) + _field(2, _field(1, _field(1, _FLOAT) + _field(2, sizes)))


def _field(number: int, value: int | str | bytes) -> bytes:
    """One field of a message: a number as it is, everything else behind its length."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    """Seven bits a byte, lowest first, the top bit set in all but the last."""
    done = bytearray()
    while value > 127:
        done.append(value & 127 | 128)
        value >>= 7
    return bytes([*done, value])
