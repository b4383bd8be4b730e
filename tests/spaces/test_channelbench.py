"""Channel-Bench-Macro: codes, the tables' checks, and the costs of all 2 x 16,384 networks."""

import copy
import json

import numpy as np
import pytest
import torch
from torch import nn

from nni_spos.errors import DataError, PathError
from nni_spos.path import PathSpace
from nni_spos.profilers import build_costs
from nni_spos.spaces import (
    ChannelBenchMobileNetSpace,
    ChannelBenchResNetSpace,
    load_channel_bench_macro,
)
from nni_spos.spaces.channelbench import PATH_SPACES, code_from_path, path_from_code

SPACES = {"resnet": ChannelBenchResNetSpace, "mobilenet": ChannelBenchMobileNetSpace}
CODES = ["".join(str(i + 1) for i in key) for key in PATH_SPACES["resnet"].enumerate().tolist()]
ENTRY = {"test_acc": [90.0, 91, 92.5], "params": 10, "flops": 20}
NARROW = (8, 12, 16, 8, 12, 4, 20)


@pytest.mark.parametrize("network", SPACES)
def test_codes_and_paths(network):
    space = PATH_SPACES[network]
    assert PathSpace.from_model_space(SPACES[network]()) == space
    assert len(set(CODES)) == space.size == 4**7
    for key, code in list(zip(space.enumerate(), CODES, strict=True))[::1000]:
        (path,) = space.decode([key])
        assert path_from_code(code, network) == path
        assert code_from_path(path, network) == code


def test_a_published_example():
    widths = list(path_from_code("4432214", "resnet").values())
    assert widths == [256, 256, 192, 256, 256, 128, 512]
    widths = list(path_from_code("1234123", "mobilenet").values())
    assert widths == [32, 384, 576, 768, 64, 768, 768]


@pytest.mark.parametrize("bad", ["443221", "44322144", "4432210", "4432215", "", 4432214])
def test_what_is_no_code(bad):
    with pytest.raises(PathError, match=r"is no code of Channel-Bench-Macro: 7 digits, each one"):
        path_from_code(bad, "resnet")


@pytest.mark.parametrize("network", SPACES)
def test_all_published_costs(channel_bench_macro_file, network):
    published = load_channel_bench_macro(channel_bench_macro_file, network)
    costs = build_costs(SPACES[network](affine=True), (3, 32, 32))
    everything = PATH_SPACES[network].enumerate()
    assert np.array_equal(costs["flops"].price_many(everything), published.flops)
    assert np.array_equal(costs["params"].price_many(everything), published.params)
    assert len(published.flops) == 16_384
    at = published.index(path_from_code("4432214", network))
    entry = json.loads(channel_bench_macro_file.read_text())[network]["4432214"]
    assert published.codes[at] == "4432214"
    assert published.accuracies[at].tolist() == entry["test_acc"]
    assert published.flops[at] == entry["flops"]


@pytest.mark.parametrize("network", SPACES)
def test_shared_widths(network):
    """A width that blocks share has one label, so that shortcuts fit."""
    space = SPACES[network](full_channels=NARROW, affine=True)
    path = PathSpace.from_model_space(space).decode([[0, 3, 1, 2, 1, 0, 3]])[0]
    frozen = space.freeze(path).eval()
    with torch.no_grad():
        assert frozen(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    convs = [m for m in frozen.modules() if isinstance(m, nn.Conv2d)]
    assert convs[0].out_channels == path["channels_0"] == 2
    outputs = {conv.out_channels for conv in convs}
    assert outputs == set(path.values())


@pytest.mark.parametrize("space", SPACES.values())
@pytest.mark.parametrize(
    ("bad", "good", "message"),
    [
        ({"num_classes": 0}, {"num_classes": 1}, "num_classes must be at least 1"),
        ({"in_channels": 0}, {"in_channels": 1}, "in_channels must be at least 1"),
        ({"input_size": 3}, {"input_size": 4}, "input_size must be at least 4 pixels, got 3"),
        ({"full_channels": [8] * 6}, {"full_channels": [8] * 7}, "must be 7 numbers of at least 4"),
        ({"full_channels": [3] * 7}, {"full_channels": [4] * 7}, "numbers of at least 4, got"),
    ],
)
def test_arguments(space, bad, good, message):
    with pytest.raises(ValueError, match=message):
        space(**{"full_channels": NARROW, **bad})
    space(**{"full_channels": NARROW, **good})


@pytest.fixture(scope="module")
def table():
    return {"resnet": dict.fromkeys(CODES, ENTRY)}


def load(folder, content, network="resnet"):
    file = folder / "table.json"
    file.write_text(json.dumps(content))
    return load_channel_bench_macro(file, network)


def test_damaged_tables(tmp_path, table):
    assert load(tmp_path, table).accuracy(path_from_code("1111111", "resnet")) == pytest.approx(
        91.1667, abs=1e-3
    )
    with pytest.raises(DataError, match="must be one JSON object with the key 'mobilenet'"):
        load(tmp_path, table, "mobilenet")
    with pytest.raises(DataError, match="unknown network of Channel-Bench-Macro 'vgg'"):
        load(tmp_path, table, "vgg")
    bad = copy.copy(table["resnet"])
    del bad["1111112"]
    with pytest.raises(DataError, match="resnet: 1 of 16384 networks are missing, '1111112' first"):
        load(tmp_path, {"resnet": bad})
    bad["1111112"] = {**ENTRY, "flops": 0}
    with pytest.raises(DataError, match="'1111112': flops must be a whole number above 0"):
        load(tmp_path, {"resnet": bad})
    with pytest.raises(DataError, match=r"'0000000' is no code of Channel-Bench-Macro, resnet\."):
        load(tmp_path, {"resnet": {**bad, "0000000": ENTRY}})
