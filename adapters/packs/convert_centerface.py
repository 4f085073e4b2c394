"""CenterFace as its authors exported it, made usable for images of any size.

As shipped, the input is fixed at 10 x 3 x 32 x 32 and the weights stand among the graph's inputs, where a caller could
replace them: so onnxruntime neither folds nor fuses them.
"""

from typing import Any, Final

import onnx
from onnx import TensorProto, helper

STRIDE: Final = 4  # pixels of the image a cell of the four maps covers
MULTIPLE: Final = 32  # the coarsest feature map has this stride; the pyramid adds up only where it divides both sides

_OUTPUTS: Final = {"heatmap": 1, "sizes": 2, "offsets": 2, "landmarks": 10}  # in the order of the authors' outputs
_IR_VERSION: Final = 8  # from 4 on, initializers need not be inputs; the same as the other converter's


def convert_centerface(source: bytes) -> bytes:
    """Rewrite `centerface.onnx`, the same bytes every time.

    The graph takes `pixels`, uint8 N x H x W x 3, RGB, 0..255, H and W multiples of 32, and gives, each float32 with
    h = H / 4 and w = W / 4: `heatmap` N x 1 x h x w in [0, 1]; `sizes` N x 2 x h x w, natural logarithm of height and
    width in cells; `offsets` N x 2 x h x w, y and x in cells; `landmarks` N x 10 x h x w, five pairs (y, x) in units
    of the box, from its top left. Values equal the original graph's.

    Raises:
        ValueError: the bytes are not this network's.
    """
    model = _parsed(source)
    graph = model.graph
    weights = {weight.name for weight in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    channels = [value.type.tensor_type.shape.dim[1].dim_value for value in graph.output]
    if len(inputs) != 1 or channels != list(_OUTPUTS.values()):
        raise ValueError(f"not CenterFace: {len(inputs)} inputs and outputs of {channels} channels")

    names = {inputs[0].name: "scaled"} | {old.name: new for old, new in zip(graph.output, _OUTPUTS, strict=True)}
    nodes = [
        helper.make_node("Transpose", ["pixels"], ["planes"], name="planes", perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["scaled"], name="scaled", to=TensorProto.FLOAT),
        *(_renamed(node, names) for node in graph.node),
    ]
    used = {name for node in nodes for name in node.input}
    rewritten = helper.make_graph(
        nodes,
        "centerface",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", "height", "width", 3])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", count, "cells_down", "cells_across"])
            for name, count in _OUTPUTS.items()
        ],
        [weight for weight in graph.initializer if weight.name in used],
    )
    result = helper.make_model(
        rewritten, opset_imports=model.opset_import, ir_version=_IR_VERSION, producer_name="facepass"
    )
    onnx.checker.check_model(result, full_check=True)
    return bytes(result.SerializeToString(deterministic=True))


def _parsed(source: bytes) -> Any:  # noqa: ANN401 - protobuf's generated classes have no types
    try:
        return onnx.load_from_string(source)
    except Exception as error:  # protobuf's DecodeError, which differs between its implementations
        raise ValueError("not CenterFace: not an ONNX file") from error


def _renamed(node: Any, names: dict[str, str]) -> Any:  # noqa: ANN401 - the same
    copy = type(node)()
    copy.CopyFrom(node)
    for field in (copy.input, copy.output):
        for index, name in enumerate(field):
            field[index] = names.get(name, name)
    return copy
