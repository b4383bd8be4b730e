"""Copies of modules."""

from __future__ import annotations

import copy
from collections import OrderedDict

from torch import nn

from nni_spos.modules.copies import copy_empty


def test_copies_of_what_is_empty_are_as_those_of_deepcopy():
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    network[0].shared = network[1].shared = OrderedDict()
    network[0].filled = OrderedDict(key=1)
    copied = copy.deepcopy(network, copy_empty(network))
    assert copied[0].shared is copied[1].shared
    assert copied[0].shared is not network[0].shared
    assert copied[0].filled == {"key": 1}
    for own, other in zip(network.modules(), copied.modules(), strict=True):
        for name, value in vars(own).items():
            assert type(vars(other)[name]) is type(value), name
            if isinstance(value, dict | set):
                assert vars(other)[name] is not value, name
    calls = []
    copied[0].register_forward_hook(lambda *_: calls.append("copy"))
    assert not network[0]._forward_hooks
