"""Any optimizer trains each weight as it would alone, in the steps whose paths use it."""

from __future__ import annotations

import copy

import pytest
import torch
from nni.nas.nn.pytorch import ModelSpace, MutableConv2d, MutableLinear
from small_spaces import choose
from torch import nn

from nni_spos.errors import RecipeError
from nni_spos.mutables import sliced_operations
from nni_spos.supernet import SinglePathOneShot
from nni_spos.training.sliced_optimizer import ELEMENTWISE, SlicedOptimizer

OPTIONS = {"lr": 0.05, "weight_decay": 0.1}
WIDTHS = [(4, 6), (2, 3), (4, 3), None, (2, 6), (4, 6)]
"""Of the steps; in one of them the layers take no part."""


class Space(ModelSpace):
    def __init__(self):
        super().__init__()
        inputs, outputs = choose("inputs", 2, 4), choose("outputs", 3, 6)
        self.first = MutableConv2d(1, inputs, 1)
        self.second = MutableConv2d(inputs, outputs, 3)
        self.third = MutableLinear(outputs, 2)
        self.whole = nn.Linear(2, 2)


@pytest.fixture
def supernet():
    torch.manual_seed(0)
    return SinglePathOneShot().mutate_model(Space())


def set_gradients(supernet, step):
    """Set a path, and gradients that are 0 outside of it; none where a layer takes no part."""
    generator = torch.Generator().manual_seed(step)
    widths = WIDTHS[step]
    for parameter in supernet.parameters():
        gradient = torch.randn(parameter.shape, generator=generator)
        parameter.grad = None if widths is None else gradient
    if widths is None:
        return {}
    parts = {}
    for _, operation in sliced_operations(supernet):
        operation.resample(dict(zip(("inputs", "outputs"), widths, strict=True)))
        for name, slices in operation.part.slices.items():
            parts[operation.get_tensor(name)] = slices
    return parts


def test_the_cells_of_a_weight_are_all_of_it(supernet):
    optimizer = SlicedOptimizer(
        torch.optim.AdamW, [{"params": supernet.parameters()}], OPTIONS, supernet
    )
    cells = optimizer._cells[supernet.second.weight]
    assert len(cells) == 4
    assert sum(cell.numel() for _, cell in cells) == supernet.second.weight.numel()
    assert supernet.whole.weight not in optimizer._cells


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_every_weight_is_trained_as_if_it_were_alone(supernet, name):
    cls = getattr(torch.optim, name)
    options = dict(OPTIONS)
    if name == "Rprop":
        del options["weight_decay"]
    groups = [{"params": [x], "lr": 0.05 + 0.01 * i} for i, x in enumerate(supernet.parameters())]
    optimizer = SlicedOptimizer(cls, groups, options, supernet)
    # One parameter for each number: what "alone" means, without a thought about slices.
    alone = {
        parameter: [nn.Parameter(x.clone()) for x in parameter.detach().flatten()]
        for parameter in supernet.parameters()
    }
    lone = cls(
        [{"params": alone[group["params"][0]], "lr": group["lr"]} for group in groups], **options
    )
    for step in range(len(WIDTHS)):
        parts = set_gradients(supernet, step)
        for parameter, singles in alone.items():
            used = torch.zeros_like(parameter, dtype=torch.bool)
            if parameter.grad is not None:
                used[parts.get(parameter, ())] = True
            for i, single in enumerate(singles):
                on = bool(used.flatten()[i])
                single.grad = parameter.grad.flatten()[i].clone() if on else None
        optimizer.step()
        lone.step()
        for parameter, singles in alone.items():
            expected = torch.stack([x.detach() for x in singles]).view_as(parameter)
            torch.testing.assert_close(parameter.detach(), expected, rtol=1e-6, atol=1e-7)


def test_plain_adamw_would_move_what_a_path_did_not_use(supernet):
    weight = supernet.second.weight
    other = copy.deepcopy(supernet)
    optimizers = [
        SlicedOptimizer(torch.optim.AdamW, [{"params": supernet.parameters()}], OPTIONS, supernet),
        torch.optim.AdamW(other.parameters(), **OPTIONS),
    ]
    for step in (0, 1):
        before = [x.second.weight.detach().clone() for x in (supernet, other)]
        for network, optimizer in zip((supernet, other), optimizers, strict=True):
            set_gradients(network, step)
            optimizer.step()
    after = [x.second.weight.detach() for x in (supernet, other)]
    assert torch.equal(before[0][3:], after[0][3:])
    assert not torch.equal(before[0][:3, :2], after[0][:3, :2])
    assert not torch.equal(before[1][3:], after[1][3:])
    assert weight.grad is not None  # whoever clips gradients finds them where they always are


def test_a_saved_state_goes_on_bit_for_bit(supernet):
    def build(network):
        groups = [{"params": list(network.parameters())}]
        return SlicedOptimizer(torch.optim.AdamW, groups, OPTIONS, network)

    optimizer = build(supernet)
    for step in (0, 1, 2):
        set_gradients(supernet, step)
        optimizer.param_groups[0]["lr"] = 0.1 / (1 + step)
        optimizer.step()
    other = copy.deepcopy(supernet)
    resumed = build(other)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert resumed.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]
    for network, one in ((supernet, optimizer), (other, resumed)):
        for step in (4, 5):
            set_gradients(network, step)
            one.step()
    for one, two in zip(supernet.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


def test_storage_that_moves_is_found_again(supernet):
    optimizer = SlicedOptimizer(
        torch.optim.AdamW, [{"params": supernet.parameters()}], OPTIONS, supernet
    )
    supernet.to(memory_format=torch.channels_last)
    before = supernet.second.weight.detach().clone()
    set_gradients(supernet, 0)
    optimizer.step()
    assert not torch.equal(before, supernet.second.weight)


def test_an_optimizer_of_whole_tensors_is_refused(supernet):
    groups = [{"params": list(supernet.parameters())}]
    with pytest.raises(RecipeError, match="adafactor updates whole tensors"):
        SlicedOptimizer(torch.optim.Adafactor, groups, {"lr": 0.1}, supernet)
