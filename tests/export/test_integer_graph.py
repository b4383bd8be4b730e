"""Graphs of rounded floats become graphs of integers, which onnxruntime runs as such."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx_ir")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from nni_spos.export.integer_graph import finish_quantized  # noqa: E402


class Graph:
    """Writes the graph of a network layer by layer, as PyTorch's exporter does."""

    def __init__(self, opset=21, channels=4, size=6):
        self.random = np.random.default_rng(0)
        self.opset = opset
        self.nodes, self.initializers, self.number = [], [], 0
        self.shape = [2, channels, size, size]
        self.value = "images"

    def constant(self, value):
        self.number += 1
        name = f"c{self.number}"
        self.initializers.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def add(self, operator, *inputs, **attributes):
        self.number += 1
        self.value = f"v{self.number}"
        self.nodes.append(helper.make_node(operator, inputs, [self.value], **attributes))
        return self.value

    def rounded(self, scale=0.02, zero=0, high=None):
        if high is not None:
            limits = [self.constant(np.float32(x)) for x in (0, high * scale)]
            self.add("Clip", self.value, *limits)
        parameters = self.constant(np.float32(scale)), self.constant(np.uint8(zero))
        self.add("QuantizeLinear", self.value, *parameters)
        return self.add("DequantizeLinear", self.value, *parameters)

    def weights(self, shape, low, high, half=False):
        inputs = self.value
        integers = self.random.integers(low, high + 1, shape).astype(np.int8)
        integers.flat[0], integers.flat[1] = low, high
        # One scale for all where the levels are half a step off.
        scales = np.float32(0.02) if half else self.scales(shape[0])
        axis = {} if half else {"axis": 0}
        found = self.add("DequantizeLinear", self.constant(integers), self.constant(scales), **axis)
        if half:
            found = self.add("Add", found, self.constant(np.float32(0.01)))
        self.value = inputs
        return found

    def scales(self, number):
        return self.random.uniform(0.001, 0.003, number).astype(np.float32)

    def conv(self, low, high, *, outputs=4, group=1, half=False, bias=True):
        weight = self.weights((outputs, 4 // group, 3, 3), low, high, half)
        values = self.random.normal(size=outputs).astype(np.float32)
        inputs = [self.value, weight, *([self.constant(values)] if bias else [])]
        return self.add("Conv", *inputs, pads=[1] * 4, group=group)

    def norm(self, channels=4, sign=1):
        rows = self.random.uniform(0.5, 2, (4, channels)).astype(np.float32)
        rows[0, ::2] *= sign
        return self.add("BatchNormalization", self.value, *map(self.constant, rows))

    def model(self):
        sizes = "nchw" if self.nodes[-1].op_type != "Gemm" else "nc"
        output = helper.make_tensor_value_info(self.value, TensorProto.FLOAT, list(sizes))
        inputs = helper.make_tensor_value_info("images", TensorProto.FLOAT, self.shape)
        graph = helper.make_graph(self.nodes, "g", [inputs], [output], self.initializers)
        opsets = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)

    def images(self):
        return self.random.normal(size=self.shape).astype(np.float32)


def run(model, images):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"images": images})[0]


def optimised(model, tmp_path):
    """Return how many there are of each operator in what onnxruntime runs."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return count(onnx.load(tmp_path / "optimised.onnx"))


def count(model):
    return Counter(node.op_type for node in model.graph.node)


def kinds(model):
    return Counter(x.data_type for x in model.graph.initializer if len(x.dims) > 1)


def finished(graph, **options):
    """Return the graph as it was written, and with integers."""
    before, after = graph.model(), finish_quantized(graph.model(), **options)
    onnx.checker.check_model(after, full_check=True)
    assert {node.domain for node in after.graph.node} <= {""}
    return before, after


def assert_same(before, after, images, steps=0.0):
    """Compare outputs, which may be `steps` apart in few places."""
    expected, found = run(before, images), run(after, images)
    far = np.abs(found - expected) > 1e-4
    assert far.mean() <= (0.01 if steps else 0)
    assert np.abs(found - expected).max() <= steps * 1.01 + 1e-4
    assert np.ptp(expected) > 10 * steps


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_convolution_that_is_rounded_again_is_one_operator(relu, sign, tmp_path):
    graph = Graph()
    graph.rounded(0.005, zero=128)  # so that an integer bias is fine enough
    graph.conv(-127, 127)
    graph.norm(sign=sign)
    if relu:
        graph.add("Relu", graph.value)
    graph.rounded(0.03, 0 if relu else 128)
    before, after = finished(graph)
    assert count(after) == {"QuantizeLinear": 2, "DequantizeLinear": 4, "Conv": 1}
    assert kinds(after) == {TensorProto.UINT8: 1}
    assert optimised(after, tmp_path)["QLinearConv"] == 1
    assert_same(before, after, graph.images(), steps=0.03)


@pytest.mark.parametrize(
    "change",
    [
        "rounded to fewer levels",
        "not rounded",
        "taken twice",
        "no integer has the other sign",
        "not folded",
    ],
)
def test_another_convolution_adds_up_integers(change, tmp_path):
    graph, steps = Graph(), 0.0
    graph.rounded(zero=128)
    graph.conv(-128 if "sign" in change else -127, 127)
    graph.norm(sign=-1 if "sign" in change else 1)
    once = graph.add("Relu", graph.value)
    if change != "not rounded":
        graph.rounded(0.3, high=15) if "fewer" in change else graph.rounded(0.03)
        steps = 0.3
    if change == "taken twice":
        graph.add("Add", once, graph.value)
    before, after = finished(graph, folded=change != "not folded")
    assert count(after)["ConvInteger"] == 1
    assert count(after)["Conv"] == 0
    assert count(after)["BatchNormalization"] == (change == "not folded")
    assert optimised(after, tmp_path)["ConvInteger"] == 1
    assert_same(before, after, graph.images(), steps)


@pytest.mark.parametrize(
    ("low", "high", "half", "group", "opset", "kind", "operators"),
    [
        (-8, 7, False, 1, 21, TensorProto.INT4, {"ConvInteger": 1, "Conv": 0}),
        (-8, 7, False, 1, 18, TensorProto.UINT8, {"ConvInteger": 1, "Conv": 0}),
        (-9, 7, False, 1, 21, TensorProto.UINT8, {"ConvInteger": 1, "Conv": 0}),
        (-8, 7, True, 1, 21, TensorProto.INT4, {"ConvInteger": 1, "Conv": 0}),
        (-8, 7, True, 4, 21, TensorProto.INT4, {"ConvInteger": 1, "Conv": 0}),
        (-128, 127, True, 1, 21, TensorProto.UINT8, {"ConvInteger": 2, "Conv": 0}),
        (-128, 127, True, 4, 21, TensorProto.INT8, {"ConvInteger": 0, "Conv": 1}),
        (-128, 127, False, 4, 21, TensorProto.UINT8, {"ConvInteger": 1, "Conv": 0}),
    ],
)
def test_weights_are_stored_in_as_few_bits_as_hold_them(
    low, high, half, group, opset, kind, operators
):
    graph = Graph(opset)
    graph.rounded(zero=128)
    graph.conv(low, high, half=half, group=group, bias=False)
    before, after = finished(graph)
    weights = [x for x in after.graph.initializer if list(x.dims) == [4, 4 // group, 3, 3]]
    assert [x.data_type for x in weights] == [kind]
    expected = 36 * 4 // group // (2 if kind == TensorProto.INT4 else 1)
    assert len(weights[0].raw_data) == expected
    assert {name: count(after)[name] for name in operators} == operators
    assert_same(before, after, graph.images())


@pytest.mark.parametrize(("low", "half"), [(-8, False), (-128, False), (-8, True), (-128, True)])
def test_a_linear_layer_adds_up_integers(low, half):
    graph = Graph()
    graph.rounded(zero=128)
    graph.add("Flatten", graph.value)
    graph.nodes[-3:] = [graph.nodes[-1], *graph.nodes[-3:-1]]  # flattened before it is rounded
    graph.nodes[0].input[0], graph.nodes[1].input[0] = "images", graph.nodes[0].output[0]
    graph.value = graph.nodes[-1].output[0]
    weight = graph.weights((5, 4 * 36), low, -low - 1, half)
    bias = graph.constant(graph.random.normal(size=5).astype(np.float32))
    graph.add("Gemm", graph.value, weight, bias, transB=1)
    before, after = finished(graph)
    assert count(after)["MatMulInteger"] == (2 if (low, half) == (-128, True) else 1)
    assert count(after)["Gemm"] == 0
    assert_same(before, after, graph.images())


def test_what_has_no_integers_stays():
    graph = Graph()
    graph.add("Relu", graph.value)
    model = graph.model()
    assert finish_quantized(model) is model
    graph.conv(-127, 127)  # of inputs that are not rounded
    before, after = finished(graph)
    assert count(after) == count(before)
    assert_same(before, after, graph.images())
