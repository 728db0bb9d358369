"""The build child where TensorRT 8.6 refuses the precisions of the graph, on a stand-in."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from engines import child
from runtime.errors import ToolchainError


class Builder:
    """Builds where layers are held as `accepts` says."""

    accepts: tuple[str, ...] = ()

    def __init__(self, log):
        self.log = log

    def build_serialized_network(self, network, config):
        if config.hold in self.accepts:
            return b"plan"
        self.log.errors.append(f"could not find any implementation, held to {config.hold}")
        return None


@pytest.fixture
def build(monkeypatch, tmp_path):
    """Runs the child's work with a TensorRT 8.6 that builds only what is said; gives answer, plan and phases."""

    def run(*accepts, **asked):
        Builder.accepts = accepts
        network = SimpleNamespace(num_inputs=0, num_outputs=0, get_input=None, get_output=None)
        parser = SimpleNamespace(parse_from_file=lambda path: True)
        trt = SimpleNamespace(
            __version__="8.6.0",
            __name__="tensorrt",
            Builder=Builder,
            OnnxParser=lambda network, log: parser,
            ILogger=type("ILogger", (), {"Severity": SimpleNamespace(ERROR=1, WARNING=2)}),
        )
        monkeypatch.setattr(child, "load_flavor", lambda name: trt)
        monkeypatch.setattr(child, "create_network", lambda trt, builder: network)
        monkeypatch.setattr(child, "configure", lambda *given: SimpleNamespace(hold=given[5]))
        phases = []
        request = {
            "flavor": "tensorrt", "onnx": "x.onnx", "plan": str(tmp_path / "x.engine"), "precision": "fp16",
            "timing_cache": None, "verbose": False, **asked,
        }  # fmt: skip
        answer = child.build_plan(request, lambda **event: phases.append(event["phase"]))
        return answer, (tmp_path / "x.engine").read_bytes(), phases

    return run


def test_what_the_graph_says_is_tried_first(build):
    answer, plan, phases = build("graph", "fp32")
    assert (answer["notes"], plan, phases) == ([], b"plan", ["parsing", "building"])


def test_where_8_6_refuses_it_another_way_is_taken_and_the_manifest_says_so(build):
    answer, plan, phases = build("free", "fp32")
    assert plan == b"plan" and phases[-1] == "building, layers held to free"
    refused = [
        "TensorRT 8.6.0 has no implementation in the precisions of the graph (could not find any implementation, held "
        "to graph)",
        "TensorRT 8.6.0 has no implementation in precisions of its own choice, islands of the policy or not (could not "
        "find any implementation, held to free)",
    ]
    assert answer["notes"] == [refused[0], "built in precisions of its own choice, islands of the policy or not"]
    answer, _, _ = build("fp32")
    assert answer["notes"] == [*refused, "built with every layer in FP32, which is slower"]


def test_where_nothing_can_be_built_the_last_reason_is_given(build):
    with pytest.raises(ToolchainError, match=r"^TensorRT 8\.6\.0 built no engine: could not .* held to fp32$"):
        build()


def test_no_other_precision_is_tried_where_a_node_with_kernels_of_one_is_refused(build):
    with pytest.raises(ToolchainError, match=r"built no engine: could not find any implementation, held to graph$"):
        build("fp32", dispensable=["held to graph"])
    assert build("free", dispensable=["dog/FusedPixels"])[1] == b"plan"
