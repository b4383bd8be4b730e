"""One way to set a path: every unit follows it, and the given path stays as it is."""

from __future__ import annotations

import torch
from nni.nas.nn.pytorch import LayerChoice, MutableConv2d
from small_spaces import build_supernet, choose
from torch import nn

from nni_spos.modules.active_path import choice_units, set_path

PATH = {"width": 2, "kernel": "k3"}


def unit():
    return LayerChoice(
        {f"k{k}": nn.Conv2d(1, 1, k, padding=k // 2) for k in (1, 3)}, label="kernel"
    )


def test_units_follow_a_path():
    supernet = build_supernet(unit, lambda: MutableConv2d(1, choose("width", 2, 4), 1))
    units = choice_units(supernet)
    assert units == [supernet.layers[0], supernet.layers[1]]
    image = torch.ones(1, 1, 4, 4)
    path = dict(PATH)
    for kernel, width in (("k1", 4), ("k3", 2), ("k1", 2)):
        path |= {"kernel": kernel, "width": width}
        given = dict(path)
        set_path(units, path)
        assert path == given
        expected = supernet.layers[0][kernel](image)
        found = supernet(image)
        assert found.shape[1] == width
        assert torch.equal(supernet.layers[0](image), expected)


def test_only_the_given_units_follow():
    supernet = build_supernet(unit, lambda: MutableConv2d(1, choose("width", 2, 4), 1))
    set_path(choice_units(supernet), PATH)
    set_path(choice_units(supernet.layers[1]), {"width": 4})
    assert supernet.layers[1].part.arguments["out_channels"] == 4
    image = torch.ones(1, 1, 4, 4)
    assert torch.equal(supernet.layers[0](image), supernet.layers[0]["k3"](image))


def test_a_network_of_one_path_has_no_units():
    assert choice_units(nn.Sequential(nn.Conv2d(1, 1, 1))) == []
