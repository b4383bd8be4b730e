"""The network of a path, built anew from a space that is there."""

import pytest
import torch

import nni_spos as spos
from nni_spos.errors import PathError
from nni_spos.path import PathSpace


def make_space():
    return spos.ShuffleNetV2Space.small(num_classes=3, in_channels=1, input_size=8)


@pytest.mark.parametrize("mutate", [False, True])
def test_it_is_the_network_that_the_costs_count(mutate):
    space = make_space()
    state = torch.get_rng_state()
    costs = spos.build_costs(space, (1, 8, 8))
    assert torch.equal(torch.get_rng_state(), state)  # what is drawn next stays as it is
    if mutate:
        spos.SinglePathOneShot().mutate_model(space)
    path = spos.UniformPrior(PathSpace.from_model_space(space), seed=3).path(0)
    network = spos.build_network(space, path)
    assert sum(x.numel() for x in network.parameters()) == costs["params"].price(path)
    weights = dict(spos.extract_subnet(space, path).named_parameters())  # without BatchNorm's
    fresh = dict(network.named_parameters())
    assert all(fresh[name].shape == x.shape for name, x in weights.items())
    assert not any(torch.equal(fresh[name], x) for name, x in weights.items() if x.dim() == 4)


def test_the_constructor_can_be_given_other_arguments():
    space = make_space()
    path = PathSpace.from_model_space(space).covering()[0]
    plain, affine = (spos.build_network(space, path, affine=x) for x in (False, True))
    assert len(list(affine.parameters())) > len(list(plain.parameters()))
    assert spos.build_network(space, path, num_classes=7)(torch.zeros(2, 1, 8, 8)).shape == (2, 7)


def test_a_path_of_another_space_is_refused():
    with pytest.raises(PathError, match="did you mean 'layer_1'"):
        spos.build_network(make_space(), {"layer1": "k3"})
