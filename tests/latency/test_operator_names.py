"""Operators that are named after the layer whose choices decide what they take."""

from __future__ import annotations

import nni
import numpy as np
import onnx
import pytest
import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, Repeat
from onnx import TensorProto, helper
from torch import nn

import nni_spos
from nni_spos.latency.exported import _latin
from nni_spos.latency.layer_times import as_deployed, find_units
from nni_spos.latency.onnx_networks import as_onnx
from nni_spos.latency.operator_names import name_by_layer
from nni_spos.modules.subnet import extract_subnet
from nni_spos.mutables import MutableConv2d
from nni_spos.path import PathSpace
from nni_spos.profilers.base import describe_network
from nni_spos.spaces import Form, build_space


def graph(*nodes):
    shape = ["n"]
    made = helper.make_graph(
        [
            helper.make_node(kind, inputs, outputs, name=name)
            for kind, inputs, outputs, name in nodes
        ],
        "network",
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, shape) for x in ("images", "w")],
        [helper.make_tensor_value_info("outputs", TensorProto.FLOAT, shape)],
    )
    return helper.make_model(made)


def test_what_computes_nothing_is_of_the_layer_before():
    model = graph(
        ("Neg", ["images"], ["a"], "scale"),
        ("Conv", ["a", "w"], ["b"], "body.0"),
        ("Relu", ["b"], ["c"], "body.1"),
        ("Conv", ["c", "w"], ["d"], "body.3.main"),
        ("Add", ["d", "b"], ["outputs"], "body"),
    )
    name_by_layer(model, {"body.0", "body.3"}, lambda node: node.name)
    assert [x.name for x in model.graph.node] == [
        "op_0", "/body/0/op_1", "/body/0/op_2", "/body/3/op_3", "/body/3/op_4",
    ]  # fmt: skip
    onnx.checker.check_model(model)  # sorted, and every input is made
    assert model.graph.node[4].input[:] == ["/body/3/op_3_output_0", "/body/0/op_1_output_0"]
    assert model.graph.node[4].output[:] == ["outputs"]


def test_what_constants_say_is_not_before():
    model = graph(
        ("Conv", ["images", "w"], ["a"], "one"),
        ("Constant", [], ["start"], ""),
        ("Slice", ["a", "start", "start"], ["outputs"], "half"),
    )
    name_by_layer(model, {"one"}, lambda node: node.name)
    assert [x.name for x in model.graph.node] == ["/one/op_0", "op_1", "/one/op_2"]


class Nested(ModelSpace):
    """Layers in a unit, in a repeated block, and alone."""

    def __init__(self):
        super().__init__()
        width = nni.choice("width", [4, 8])
        inner = nn.Sequential(MutableConv2d(3, width, 1), nn.ReLU(), MutableConv2d(width, 3, 1))
        self.skipped = LayerChoice({"block": inner, "identity": nn.Identity()}, label="skip")
        self.repeated = Repeat(lambda i: nn.Conv2d(3, 3, 1), (1, 2), label="depth")
        self.kind = LayerChoice([nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 3, padding=1)], label="kind")

    def forward(self, x):
        return self.kind(self.repeated(self.skipped(x)))


def exported(space, shape):
    """Yield the operators of some paths with their layers, and the layers of the space."""
    described = as_deployed(space, describe_network(space, shape).layers)
    names = {*find_units(space), *(x.name for x in described if x.macs)}
    for path in _latin(PathSpace.from_model_space(space), 4, np.random.default_rng(0)):
        content = as_onnx(extract_subnet(space, path), torch.randn(1, *shape), names)
        nodes = onnx.load_model_from_string(content).graph.node
        yield path, [x for x in nodes if x.op_type not in ("Constant", "Identity")], described


def layers_of(nodes):
    return {".".join(x.name.split("/")[1:-1]) for x in nodes}


def test_layers_have_the_names_of_the_network_of_a_path():
    space = Nested()
    assert find_units(space) == ["kind"]
    for path, nodes, described in exported(space, (3, 8, 8)):
        known = {x.name for x in described}
        block = {"skipped.0", "skipped.2"} if path["skip"] == "block" else set()
        assert layers_of(nodes) == {
            *block,
            *(f"repeated.{i}" for i in range(path["depth"])),
            "kind",
        }
        assert block <= known
        assert {"repeated.0", "repeated.1"} <= known


TINY = {"stage_repeats": [1], "stage_channels": [8], "input_size": 8, "in_channels": 1}


def converted():
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.Hardswish(), nn.Conv2d(16, 8, 1), nn.Flatten(),
        nn.Linear(8 * 36, 5),
    ).eval()  # fmt: skip
    return nni_spos.convert(network, torch.randn(1, 3, 8, 8), choices={"channels": [0.5, 1.0]})


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (converted, (3, 8, 8)),
        pytest.param(
            lambda: build_space("shufflenet_channels_small", {}, Form.SUBNET),
            (3, 32, 32),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            lambda: build_space("resnet_small", {**TINY, "channel_scales": None}, Form.SUBNET),
            (1, 8, 8),
            marks=pytest.mark.slow,  # PyTorch's exporter takes seconds for each path
        ),
    ],
)
def test_every_operator_is_of_a_layer(build, shape):
    """Whatever a runtime fuses, its name is of a layer with multiply-adds or of a unit."""
    for _, nodes, _ in exported(build(), shape):
        assert "" not in layers_of(nodes)
