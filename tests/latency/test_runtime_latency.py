"""Latencies in another runtime: how times of operators become a table."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from in_a_fork import alone
from tiny_space import TINY_DATA, TINY_SPACE

from nni_spos.cli import main
from nni_spos.errors import CostError
from nni_spos.latency import exported
from nni_spos.latency.layer_times import tabulate
from nni_spos.latency.runtimes import RUNTIMES, in_onnxruntime, in_openvino
from nni_spos.latency.table import load_latency_table, read_latency_table
from nni_spos.metrics import Layer
from nni_spos.path import PathSpace

SPACE = PathSpace({"a": ["k3", "k5"], "b": [1, 2, 3, 4]})


def layer(name, condition, macs, size=8):
    return Layer(name, None, (1, size), (1, size), condition, macs)


LAYERS = [
    layer("stem", (), 100),
    *(layer("one.conv", (("a", x),), macs) for x, macs in (("k3", 90), ("k5", 250))),
    *(layer("two", (("b", x),), 40 * x, 8 * x) for x in (1, 2, 3, 4)),
]


def times(path):
    """What the runtime says of a path: the last layer takes 0.5 and 0.01 for each multiply-add."""
    unit = {"k3": 2.0, "k5": 5.0}[path["a"]]
    return {"stem": 1.0, "one.conv": unit - 0.5, "one": 0.5, "two": 0.5 + 0.4 * path["b"], "": 0.1}


def test_each_choice_takes_what_was_seen():
    paths = exported._latin(SPACE, 16, np.random.default_rng(0))
    table = tabulate(SPACE, ["one"], LAYERS, paths, [times(x) for x in paths])
    found = {factor.labels: factor.table.tolist() for factor in table.factors}
    assert found[("a",)] == pytest.approx([2, 5])
    assert found[("b",)] == pytest.approx([0.9, 1.3, 1.7, 2.1])


def test_combinations_that_were_not_seen_lie_on_a_line():
    paths = [{"a": "k3", "b": x} for x in (1, 2, 4)]
    table = tabulate(SPACE, ["one"], LAYERS, paths, [times(x) for x in paths])
    found = {factor.labels: factor.table.tolist() for factor in table.factors}
    assert found[("b",)] == pytest.approx([0.9, 1.3, 1.7, 2.1])


def test_every_choice_is_in_a_sample_equally_often():
    paths = exported._latin(SPACE, 3, np.random.default_rng(0))
    assert len(paths) == 8
    for label, choices in SPACE.items():
        made = [path[label] for path in paths]
        assert {made.count(x) for x in choices} == {len(paths) // len(choices)}
    others = exported._random(SPACE, 3, paths, np.random.default_rng(0))
    assert len({tuple(x.values()) for x in others}) == len(others) == 3


def test_whole_networks_say_what_all_paths_share():
    units = tabulate(
        SPACE, ["one"], LAYERS, paths := SPACE.decode(SPACE.enumerate()), [times(x) for x in paths]
    )
    whole = np.array([3 + units.price(path) for path in paths])
    costs, validation = exported._validate("latency_ms(onnxruntime)", units, SPACE, paths, whole, 4)
    assert costs.metric == "latency_ms(onnxruntime)"
    assert costs.constant == pytest.approx(3)
    assert validation.mape_percent == pytest.approx(0, abs=1e-9)


def test_layers_that_take_longer_with_notes_are_brought_down():
    paths = SPACE.decode(SPACE.enumerate())
    units = tabulate(SPACE, ["one"], LAYERS, paths, [times(x) for x in paths])
    whole = np.array([0.6 * units.price(path) for path in paths])
    costs, validation = exported._validate("latency_ms(onnxruntime)", units, SPACE, paths, whole, 4)
    assert costs.constant == 0
    assert costs.price(paths[0]) == pytest.approx(whole[0])
    assert validation.mape_percent == pytest.approx(0, abs=1e-9)


def test_layers_by_their_names():
    layer_of = in_onnxruntime.operator_layers
    events = ["/features/features.3/branch/branch.0/Conv_kernel_time", "/Flatten_kernel_time"]
    assert list(layer_of(events).values()) == ["features.3.branch.0", ""]
    layer_of = in_openvino.operator_layer
    assert layer_of("/stem/stem.0/Conv/WithoutBiases") == "stem.0.Conv"  # inside of the layer
    assert layer_of("/one/Relu_abcd_acdb_/two/two.1/Conv") == "two.1"
    assert layer_of("outputs") == ""


def test_another_memory_format_is_of_the_layer_that_needs_it():
    events = ["ReorderInput", "/one/op_1", "ReorderOutput_token_7", "op_2", "ReorderInput_token_1"]
    found = in_onnxruntime.operator_layers([f"{x}_kernel_time" for x in [*events, "/two/op_3"]])
    assert list(found.values()) == ["one", "one", "one", "", "two", "two"]


def test_a_profile_that_is_full_ends_early(tmp_path):
    events = [
        {"cat": "Node", "name": f"/{name}/Conv_kernel_time", "dur": 1e3 * ms}
        for ms in (1, 2)
        for name in ("one", "two", "two")
    ][:-1]
    file = tmp_path / "profile.json"
    file.write_text(json.dumps([*events, {"cat": "Session", "name": "x_kernel_time", "dur": 9}]))
    session = SimpleNamespace(
        get_inputs=lambda: [SimpleNamespace(name="images")],
        run=lambda *_: None,
        end_profiling=lambda: str(file),
    )
    network = in_onnxruntime._OnnxRuntimeProfile(session)
    for _ in range(2):
        network.run(None)
    found = network.layer_runs()
    assert found["one"].tolist() == [1, 2]
    assert found["two"][0] == 2
    assert np.isnan(found["two"][1])


@pytest.mark.slow
@pytest.mark.parametrize("runtime", RUNTIMES)
@alone
def test_a_table_that_a_recipe_can_limit(runtime, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    training = {"epochs": 1}
    recipe = {"output": "out", "space": TINY_SPACE, "data": TINY_DATA, "supernet": training,
              "retrain": training}  # fmt: skip
    (tmp_path / "recipe.yml").write_text(yaml.safe_dump(recipe))
    monkeypatch.setattr(exported.RuntimeProfiler.__init__, "__defaults__", (1, None, 2, 1, 6))
    arguments = ["latency", "recipe.yml", "--runtime", runtime, "--output", "table.json"]
    assert main([*arguments, "--device", "cuda"]) == 2
    assert "runs on the CPU" in capsys.readouterr().err
    assert main([*arguments, "--paths", "4"]) == 0
    titles = {"onnxruntime": "onnxruntime 1.", "openvino": "OpenVINO 20"}
    assert f"threads: 1, channels_last: no, {titles[runtime]}" in capsys.readouterr().out
    table = read_latency_table("table.json")
    assert table.conditions.runtime.startswith(titles[runtime])
    assert len(table.costs.factors) == 3
    assert all((factor.table > 0).all() for factor in table.costs.factors)
    costs = load_latency_table("table.json", table.costs.space, flops=table.flops)
    assert costs.metric == f"latency_ms({runtime})"
    content = json.loads((tmp_path / "table.json").read_text())
    content["conditions"]["device"] = "abacus"
    (tmp_path / "table.json").write_text(json.dumps(content))
    with pytest.raises(CostError):
        read_latency_table("table.json")


@pytest.mark.slow
@pytest.mark.parametrize("runtime", RUNTIMES)
@alone
def test_widths_and_bits_can_be_measured(runtime):
    from nni_spos.spaces import Form, build_space

    small = {"stage_repeats": [1], "stage_channels": [8], "input_size": 8, "in_channels": 1}
    profiler = exported.RuntimeProfiler(runtime, rounds=2, repeats=1, samples=6)
    widths = build_space("resnet_small", {**small, "bit_pairs": None}, Form.SUBNET)
    table = profiler.profile(widths, (1, 8, 8), num_paths=2)
    assert {factor.labels for factor in table.costs.factors} == {("channels_1",)}
    bits = build_space("resnet_small", {**small, "channel_scales": None}, Form.SUBNET)
    table = profiler.profile(bits, (1, 8, 8), num_paths=2)  # as the integers that are exported
    assert {factor.labels for factor in table.costs.factors} == {("bits_1",)}
    assert all((factor.table > 0).all() for factor in table.costs.factors)
