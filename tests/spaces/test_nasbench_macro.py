"""NAS-Bench-Macro: codes, the table's checks, and its figures of all 6561 networks."""

import copy
import json

import numpy as np
import pytest
import torch
from torch import nn

from nni_spos.errors import DataError, PathError
from nni_spos.path import PathSpace
from nni_spos.profilers import build_costs
from nni_spos.spaces import NASBenchMacroSpace, load_nas_bench_macro
from nni_spos.spaces.nasbench_macro import SPACE, code_from_path, path_from_code

CODE = "02012100"
CODES = ["".join(map(str, key)) for key in SPACE.enumerate().tolist()]
PATH = {
    "layer_1": "identity",
    "layer_2": "k5e6",
    "layer_3": "identity",
    "layer_4": "k3e3",
    "layer_5": "k5e6",
    "layer_6": "k3e3",
    "layer_7": "identity",
    "layer_8": "identity",
}


def test_codes_and_paths():
    assert path_from_code(CODE) == PATH
    assert code_from_path(PATH) == CODE
    assert PathSpace.from_model_space(NASBenchMacroSpace()) == SPACE
    paths = SPACE.decode(SPACE.enumerate())
    codes = [code_from_path(path) for path in paths]
    assert codes == CODES == sorted(set(CODES))
    assert len(codes) == 3**8
    assert [path_from_code(code) for code in codes] == paths


@pytest.mark.parametrize("bad", ["0201210", "020121000", "02012103", "0201210a", "", 2012100, None])
def test_what_is_no_code(bad):
    with pytest.raises(PathError, match=r"is no code of NAS-Bench-Macro: 8 digits, each one of 0,"):
        path_from_code(bad)


def test_what_is_no_path():
    with pytest.raises(PathError, match="'k3' is not a choice"):
        code_from_path({**PATH, "layer_3": "k3"})


def test_all_published_costs(nas_bench_macro_file):
    published = load_nas_bench_macro(nas_bench_macro_file)
    costs = build_costs(NASBenchMacroSpace(affine=True), (3, 32, 32))
    everything = SPACE.enumerate()
    assert np.array_equal(costs["flops"].price_many(everything), published.flops)
    assert np.array_equal(costs["params"].price_many(everything), published.params)
    assert len(published.flops) == 6561


def test_the_published_accuracies(nas_bench_macro_file):
    published = load_nas_bench_macro(nas_bench_macro_file)
    entry = json.loads(nas_bench_macro_file.read_text())[CODE]
    at = published.index(PATH)
    assert at == int(CODE, 3)
    assert (published.flops[at], published.params[at]) == (47_327_744, 890_666)
    assert published.accuracies.shape == (6561, 3)
    assert published.accuracies[at].tolist() == entry["test_acc"]
    assert abs(published.accuracy(PATH) - entry["mean_acc"]) < 1e-4
    with pytest.raises(PathError):
        published.accuracy({})


def test_an_identity_is_a_convolution_where_the_shape_changes():
    space = NASBenchMacroSpace()
    for i, (unit, changes) in enumerate(zip(space.features, (1, 0, 1, 0, 0, 1, 0, 0), strict=True)):
        layers = [m for m in unit["identity"].modules() if isinstance(m, nn.Conv2d)]
        assert len(layers) == changes, i
        if changes:
            assert (layers[0].kernel_size, layers[0].stride) == ((1, 1), (2, 2))


def test_costs_of_the_cheapest_network():
    # By hand: three strided 1x1 convolutions between the stem and the last convolution.
    network = NASBenchMacroSpace(affine=True).freeze(path_from_code("00000000"))
    weights = [27 * 32, 32 * 64, 64 * 128, 128 * 256, 256 * 1280]
    norms = 2 * (32 + 64 + 128 + 256 + 1280)
    count = sum(p.numel() for p in network.parameters())
    assert count == sum(weights) + norms + 1280 * 10 + 10
    costs = build_costs(NASBenchMacroSpace(affine=True), (3, 32, 32))
    pixels = (32 * 32, 16 * 16, 8 * 8, 4 * 4, 4 * 4)
    flops = sum(w * p for w, p in zip(weights, pixels, strict=True)) + 1280 * 10
    assert costs["flops"].cheapest() == (flops, path_from_code("00000000"))
    assert costs["params"].price(path_from_code("00000000")) == count


@pytest.mark.parametrize(
    ("bad", "good", "message"),
    [
        ({"num_classes": 0}, {"num_classes": 1}, "num_classes must be at least 1, got 0"),
        ({"in_channels": 0}, {"in_channels": 1}, "in_channels must be at least 1, got 0"),
        ({"input_size": 7}, {"input_size": 8}, "input_size must be at least 8 pixels, got 7"),
    ],
)
def test_arguments(bad, good, message):
    with pytest.raises(ValueError, match=message):
        NASBenchMacroSpace(**bad)
    space = NASBenchMacroSpace(**good).eval()
    x = torch.randn(1, space.in_channels, space.input_size, space.input_size)
    with torch.no_grad():
        assert space(x).shape == (1, space.num_classes)


ENTRY = {"test_acc": [90.0, 91, 92.5], "mean_acc": 91.1, "std": 1.0, "params": 10, "flops": 20}


@pytest.fixture
def table():
    return {code: copy.deepcopy(ENTRY) for code in CODES}


def load(folder, content):
    file = folder / "table.json"
    file.write_text(json.dumps(content))
    return load_nas_bench_macro(file)


def test_a_whole_table_in_any_order(tmp_path, table):
    table[CODE]["flops"] = 7
    loaded = load(tmp_path, dict(reversed(table.items())))
    assert np.flatnonzero(loaded.flops == 7).tolist() == [int(CODE, 3)]
    assert loaded.accuracy(PATH) == pytest.approx((90 + 91 + 92.5) / 3)


def test_no_file(tmp_path):
    with pytest.raises(DataError, match=r"table\.json: no such file"):
        load_nas_bench_macro(tmp_path / "table.json")
    (tmp_path / "table.json").write_text("{")
    with pytest.raises(DataError, match=r"table\.json: is not valid JSON"):
        load_nas_bench_macro(tmp_path / "table.json")


@pytest.mark.parametrize("content", [[], 3, "x", None])
def test_no_object(tmp_path, content):
    with pytest.raises(DataError, match=r"table\.json: must be one JSON object"):
        load(tmp_path, content)


def test_networks_that_are_missing_or_unknown(tmp_path, table):
    with pytest.raises(DataError, match=r"'02012103' is no code of NAS-Bench-Macro\."):
        load(tmp_path, {**table, "02012103": ENTRY})
    del table[CODE], table["22222222"]
    with pytest.raises(DataError, match=f"2 of 6561 networks are missing, '{CODE}' first"):
        load(tmp_path, table)


@pytest.mark.parametrize(
    ("bad", "good", "message"),
    [
        ({"test_acc": [90.0, 91.0]}, {"test_acc": [0, 100, 50]}, "a list of 3 numbers, got [90"),
        ({"test_acc": 90.0}, {"test_acc": [90.0] * 3}, "a list of 3 numbers, got 90.0"),
        ({"test_acc": [1, 2, 100.5]}, {"test_acc": [1, 2, 3]}, "must be percentages, got 100.5"),
        ({"test_acc": [1, 2, -1]}, {"test_acc": [1, 2, 0]}, "must be percentages, got -1"),
        ({"test_acc": [1, 2, "3"]}, {"test_acc": [1, 2, 3]}, "must be percentages, got '3'"),
        ({"test_acc": [1, 2, True]}, {"test_acc": [1, 2, 1]}, "must be percentages, got True"),
        ({"test_acc": [1, 2, np.nan]}, {"test_acc": [1, 2, 1]}, "must be percentages, got nan"),
        ({"params": 0}, {"params": 1}, "params must be a whole number above 0, got 0"),
        ({"params": 10.5}, {"params": 10}, "params must be a whole number above 0, got 10.5"),
        ({"flops": None}, {"flops": 3}, "flops must be a whole number above 0, got None"),
    ],
    ids=str,
)
def test_wrong_figures(tmp_path, table, bad, good, message):
    with pytest.raises(DataError) as error:
        load(tmp_path, {**table, CODE: ENTRY | bad})
    assert f"table.json: network '{CODE}': " in str(error.value)
    assert message in str(error.value)
    load(tmp_path, {**table, CODE: ENTRY | good})


def test_an_entry_that_is_no_object(tmp_path, table):
    with pytest.raises(DataError, match=f"network '{CODE}': must be a JSON object, got 91"):
        load(tmp_path, {**table, CODE: 91})
