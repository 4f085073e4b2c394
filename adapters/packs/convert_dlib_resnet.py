"""dlib's face recognition ResNet-29, from its own file format to ONNX.

Architecture: `anet_type` of dlib's `examples/dnn_face_recognition_ex.cpp`, with the affine layers that replace batch
normalisation at inference. Format: dlib's `serialize.h` (variable-length integers: a control byte that holds the
number of bytes, then these, least significant first) and `cuda/tensor.h` (version 2, four sizes, little-endian
float32).
"""

import math
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE: Final = 150  # pixels; `input_rgb_image_sized<150>`
DIMENSION: Final = 128
MEAN: Final = (122.782, 117.001, 104.298)  # red, green, blue; `input_rgb_image`'s defaults, as the file repeats them
SCALE: Final = 256.0  # the divisor in `input_rgb_image::to_tensor`
STAGES: Final = ((32, 3, False), (64, 4, True), (128, 3, True), (256, 3, True), (256, 1, True))
"""(channels, blocks, whether the first block halves the sides), from the input on."""

_OPSET: Final = 13
_IR_VERSION: Final = 8  # the oldest that carries opset 13 in every onnxruntime since 1.14
_HEADER_GAP: Final = 512  # bytes; layer names and shapes between two tensors take at most 282 in this file

_Floats = npt.NDArray[np.float32]


def convert_dlib_resnet(source: bytes) -> bytes:
    """Turn `dlib_face_recognition_resnet_model_v1.dat` into an ONNX model, the same bytes every time.

    The graph takes `pixels`, uint8 N x 150 x 150 x 3, RGB, 0..255, and gives `embedding`, float32 N x 128, not
    normalised. Mean, divisor and affine layers are folded into the convolutions: the first has no padding, so this is
    exact up to rounding (largest difference from dlib's own embeddings: see the parity test).

    Raises:
        ValueError: the bytes are not this network's.
    """
    return _Graph(_tensors(source)).serialized()


def _tensors(source: bytes) -> Iterator[_Floats]:
    """The parameters in file order, which is from the input to the output; each read needs the count it expects."""
    position = 0
    for count, rows in _expected():
        header = b"\x01\x02" + _integer(count) + (b"\x01\x01" * 3 if rows == 1 else _integer(rows) + b"\x01\x01" * 2)
        found = source.find(header, position, position + _HEADER_GAP + len(header))
        if found < 0:
            raise ValueError(
                f"not dlib's face recognition ResNet: no tensor of {count} x {rows} after {position} bytes"
            )
        start = found + len(header)
        position = start + count * rows * 4
        if position > len(source):
            raise ValueError(f"not dlib's face recognition ResNet: it ends within the tensor at byte {start}")
        yield np.frombuffer(source, dtype="<f4", count=count * rows, offset=start)


def _expected() -> Iterator[tuple[int, int]]:
    for inputs, outputs, kernel in _convolutions():
        yield outputs * inputs * kernel * kernel + outputs, 1
        yield 2 * outputs, 1
    yield 2 * DIMENSION, DIMENSION


def _convolutions() -> Iterator[tuple[int, int, int]]:
    """(input channels, output channels, kernel side) of the 29 convolutions."""
    yield 3, 32, 7
    before = 32
    for channels, blocks, _ in STAGES:
        for _ in range(blocks):
            yield before, channels, 3
            yield channels, channels, 3
            before = channels


def _integer(value: int) -> bytes:
    """Encode a non-negative integer as dlib does."""
    size = max(1, (value.bit_length() + 7) // 8)
    return bytes([size]) + value.to_bytes(size, "little")


class _Graph:
    """Collects nodes and weights while the network is walked from its input to its output."""

    def __init__(self, tensors: Iterator[_Floats]) -> None:
        self._tensors = tensors
        self._nodes: list[Any] = []
        self._weights: list[Any] = []
        self._names = 0

    def serialized(self) -> bytes:
        value = self._node("Transpose", "pixels", perm=[0, 3, 1, 2])
        value = self._node("Cast", value, to=TensorProto.FLOAT)
        value = self._convolution(value, 3, 32, 7, stride=2, pad=0, pixels=True)
        value = self._node("Relu", value)
        value = self._node("MaxPool", value, kernel_shape=[3, 3], strides=[2, 2])
        side = ((SIDE - 7) // 2 + 1 - 3) // 2 + 1
        before = 32
        for channels, blocks, halves in STAGES:
            for block in range(blocks):
                value, side = self._block(value, side, before, channels, down=halves and block == 0)
                before = channels
        value = self._node("GlobalAveragePool", value)
        value = self._node("Flatten", value, axis=1)
        matrix = next(self._tensors).reshape(before, DIMENSION)
        self._nodes.append(helper.make_node("MatMul", [value, self._weight(matrix)], ["embedding"], name="embedding"))
        graph = helper.make_graph(
            self._nodes,
            "dlib_face_recognition_resnet_model_v1",
            [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", SIDE, SIDE, 3])],
            [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", DIMENSION])],
            self._weights,
        )
        opset = [helper.make_opsetid("", _OPSET)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=_IR_VERSION, producer_name="facepass")
        onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString(deterministic=True))

    def _block(self, value: str, side: int, before: int, channels: int, *, down: bool) -> tuple[str, int]:
        """A residual block; what `add_prev` finds smaller is padded with zeros at the end, as dlib's `add` does."""
        main = self._convolution(value, before, channels, 3, stride=2 if down else 1, pad=0 if down else 1)
        main = self._node("Relu", main)
        main = self._convolution(main, channels, channels, 3, stride=1, pad=1)
        main_side, skip, skip_side = side, value, side
        if down:
            skip = self._node("AveragePool", value, kernel_shape=[2, 2], strides=[2, 2])
            main_side, skip_side = (side - 3) // 2 + 1, (side - 2) // 2 + 1
        side = max(main_side, skip_side)
        main = self._padded(main, 0, side - main_side)
        skip = self._padded(skip, channels - before, side - skip_side)
        return self._node("Relu", self._node("Add", main, skip)), side

    def _padded(self, value: str, channels: int, sides: int) -> str:
        if not channels and not sides:
            return value
        return self._node("Pad", value, self._weight(np.array([0, 0, 0, 0, 0, channels, sides, sides], np.int64)))

    def _convolution(
        self, value: str, inputs: int, outputs: int, kernel: int, *, stride: int, pad: int, pixels: bool = False
    ) -> str:
        parameters = next(self._tensors).astype(np.float64)
        gamma, beta = np.split(next(self._tensors).astype(np.float64), 2)
        filters = parameters[:-outputs].reshape(outputs, inputs, kernel, kernel) * gamma[:, None, None, None]
        bias = parameters[-outputs:] * gamma + beta
        if pixels:
            filters /= SCALE
            shift = filters * np.array(MEAN)[None, :, None, None]
            # fsum is exact, so the bytes do not depend on the processor's vector width.
            bias = np.array(
                [math.fsum([b, *(-row).tolist()]) for b, row in zip(bias, shift.reshape(outputs, -1), strict=True)]
            )
        return self._node(
            "Conv",
            value,
            self._weight(filters.astype(np.float32)),
            self._weight(bias.astype(np.float32)),
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[pad] * 4,
        )

    def _weight(self, values: npt.NDArray[np.float32] | npt.NDArray[np.int64]) -> str:
        name = f"weight_{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def _node(self, operator: str, *inputs: str, **attributes: object) -> str:
        self._names += 1
        name = f"{operator.lower()}_{self._names}"
        node = helper.make_node(operator, list(inputs), [name], name=name)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in sorted(attributes.items()))
        self._nodes.append(node)
        return name
