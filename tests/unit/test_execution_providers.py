from pathlib import Path

import onnxruntime
import pytest
from onnx import TensorProto, helper

from adapters.inference.providers import execution_providers, require_loaded
from adapters.inference.sessions import open_graph
from application.ports.errors import PortRejected

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A graph that returns what it is given."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "identity", ends[:1], ends[1:])
    path = tmp_path / "identity.onnx"
    path.write_bytes(
        helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)]).SerializeToString()
    )
    return path


@pytest.mark.parametrize("name", ["cpu", "CPU", " cpu", CPU, "cpuexecutionprovider"])
def test_a_provider_goes_by_its_short_and_its_full_name(name: str) -> None:
    assert execution_providers([name], port="face_embedder") == (CPU,)


def test_a_provider_named_twice_is_taken_once() -> None:
    assert execution_providers(["cpu", CPU], port="face_embedder") == (CPU,)


@pytest.mark.parametrize("asked", [["cuda"], [CUDA, CPU], ["cpu", "cuda"]])
def test_a_provider_that_this_build_lacks_is_refused_by_the_name_of_the_setting(asked: list[str]) -> None:
    if CUDA in onnxruntime.get_available_providers():
        pytest.skip("this build of onnxruntime has CUDA")
    with pytest.raises(PortRejected, match=r"FACEPASS_FACE_EMBEDDER__PROVIDERS asks for CUDA.*lacks.*: .*cpu"):
        execution_providers(asked, port="face_embedder")


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("openvino", "OpenVINOExecutionProvider"),
        ("coreml", "CoreMLExecutionProvider"),
        ("tensorrt", "TensorrtExecutionProvider"),
        ("directml", "DmlExecutionProvider"),
        ("dml", "DmlExecutionProvider"),
        ("qnn", "QNNExecutionProvider"),
    ],
)
def test_a_short_name_means_the_provider_of_that_name(short: str, full: str) -> None:
    if full in onnxruntime.get_available_providers():
        assert execution_providers([short], port="face_embedder") == (full,)
    else:
        with pytest.raises(PortRejected, match=full):
            execution_providers([short], port="face_embedder")


def test_an_unknown_provider_is_told_apart_from_a_missing_one() -> None:
    with pytest.raises(PortRejected, match=r"FACEPASS_LIVENESS_CHECKER__PROVIDERS asks for gpu.*does not know"):
        execution_providers(["gpu"], port="liveness_checker")


def test_no_provider_at_all_is_refused() -> None:
    with pytest.raises(PortRejected, match="names no execution provider"):
        execution_providers([], port="face_embedder")


def test_a_session_that_fell_back_is_refused(model: Path) -> None:
    # What onnxruntime-gpu leaves behind on a machine without a GPU: the session is there, and runs on the processor.
    session = onnxruntime.InferenceSession(model, providers=[CPU])
    require_loaded(session, [CPU], port="face_embedder")
    with pytest.raises(PortRejected, match=r"FACEPASS_FACE_EMBEDDER__PROVIDERS asks for CUDA.*could not start.*: cpu"):
        require_loaded(session, [CUDA, CPU], port="face_embedder")


def test_a_model_does_not_load_on_less_than_was_asked_for(model: Path) -> None:
    assert open_graph(model, port="face_embedder", providers=["cpu"])
    if CUDA not in onnxruntime.get_available_providers():
        with pytest.raises(PortRejected):
            open_graph(model, port="face_embedder", providers=["cuda", "cpu"])
