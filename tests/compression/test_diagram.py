"""Units of a network before and after, as a picture."""

import re
from types import SimpleNamespace

import torch
from torch import nn

from nni_spos import build_costs, convert
from nni_spos.compression.diagram import draw_units
from nni_spos.report.drawing import as_file


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(1, 16, 3)
        self.blocks = nn.ModuleList([nn.Conv2d(16, 16, 3), nn.Conv2d(16, 8, 3)])

    def forward(self, x):
        x = torch.relu(self.one(x))
        for block in self.blocks:
            x = torch.relu(block(x))
        return x.mean((2, 3))


def draw(path):
    images = torch.zeros(1, 1, 10, 10)
    space = convert(Net().eval(), images, {"channels": [0.5, 1.0]})
    found = SimpleNamespace(
        plan=space.plan,
        tables=build_costs(space, images.shape[1:]),
        result=SimpleNamespace(path=path),
    )
    return draw_units(found)


def test_every_unit_is_there_before_and_after():
    chart = draw({"one.channels": 16, "blocks.0.channels": 8})
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", chart.svg)
    assert [x for x in texts if ".channels" in x] == ["one.channels", "blocks.0.channels"]
    assert [x for x in texts if x in ("8", "16")] == ["16", "16", "16", "8"]
    # By hand: 8x8 pixels of 3x3 weights for 16 channels. A layer between two choices stands with
    # the second: 6x6 pixels, 16 to 8 channels, and 4x4 pixels, 8 to 8.
    assert texts.index("9.216k") == texts.index("one.channels") + 3
    assert 36 * 9 * 16 * 8 + 16 * 9 * 8 * 8 == 50_688
    assert texts[-1] == "50.688k"
    assert chart.alt == (
        "Units that changed, from the images to the outputs: blocks.0.channels 16 to 8."
    )
    assert as_file(chart).startswith("<svg xmlns=")


def test_nothing_changed():
    chart = draw({"one.channels": 16, "blocks.0.channels": 16})
    assert chart.alt.endswith("from the images to the outputs: none.")
