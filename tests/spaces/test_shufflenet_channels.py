"""The ShuffleNetV2 space whose units choose their channels, alone or together with blocks."""

import pytest
import torch
from nni.nas.nn.pytorch import LayerChoice
from torch import nn

from nni_spos.errors import RecipeError
from nni_spos.mutables import SCALES
from nni_spos.path import PathSpace
from nni_spos.spaces import Form, ShuffleNetV2Space, build_space
from nni_spos.supernet import SinglePathOneShot

CHOICES = ("k3", "k5", "k7", "xcep")
# Half the outputs of a unit of 64 and of 160 channels, times 0.2 to 1.6, rounded down.
OF_64 = (6, 12, 19, 25, 32, 38, 44, 51)
OF_160 = (16, 32, 48, 64, 80, 96, 112, 128)
TWO_STAGES = {"stage_repeats": [2, 1], "stage_channels": [64, 160], "input_size": 32}


def build(form=Form.SUPERNET, path=None, **arguments):
    arguments = {**TWO_STAGES, "channel_scales": SCALES, **arguments}
    return build_space("shufflenet", arguments, form, path=path)


def convolutions(module):
    return [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]


def test_released_scales():
    assert SCALES == (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6)


def test_channels_alone():
    space = PathSpace.from_model_space(build(blocks="k3"))
    assert dict(space) == {"channels_1": OF_64, "channels_2": OF_64, "channels_3": OF_160}
    assert not any(isinstance(module, LayerChoice) for module in build(blocks="k3").modules())


def test_channels_and_blocks():
    space = PathSpace.from_model_space(build())
    assert dict(space) == {
        **{f"layer_{i}": CHOICES for i in (1, 2, 3)},
        **{"channels_1": OF_64, "channels_2": OF_64, "channels_3": OF_160},
    }


def test_blocks_alone():
    space = PathSpace.from_model_space(build(channel_scales=None))
    assert dict(space) == {f"layer_{i}": CHOICES for i in (1, 2, 3)}


@pytest.mark.parametrize(
    ("blocks", "kernels"),
    [
        # The main branch, and what is beside it where the stride is 2.
        ("k5", [[5, 5], [5], [5, 5]]),
        (["k3", "xcep", "k7"], [[3, 3], [3, 3, 3], [7, 7]]),
        (("k7", "k5", "xcep"), [[7, 7], [5], [3, 3, 3, 3]]),
    ],
    ids=str,
)
def test_given_blocks(blocks, kernels):
    found = [
        [conv.kernel_size[0] for conv in convolutions(unit) if conv.kernel_size != (1, 1)]
        for unit in build(blocks=blocks).features
    ]
    assert found == kernels


def test_channels_are_rounded_to_multiples():
    # 6.4, 12.8, 19.2, 25.6, 32, 38.4, 44.8 and 51.2 to the nearest multiple of 8.
    space = PathSpace.from_model_space(build(channels_multiple_of=8))
    assert space["channels_1"] == (8, 16, 24, 32, 40, 48)
    # 16 x 0.25 is half a multiple, which goes up.
    space = PathSpace.from_model_space(build(channel_scales=[0.125, 0.1], channels_multiple_of=8))
    assert space["channels_1"] == (8,)
    assert space["channels_3"] == (8,)


@pytest.mark.parametrize("choice", CHOICES)
def test_all_blocks_of_a_unit_have_its_channels(choice):
    path = {"channels_1": 19, "channels_2": 51, "channels_3": 16}
    path |= {f"layer_{i}": choice for i in (1, 2, 3)}
    network = build(path=path)
    assert not network.simplify()
    strided, plain, last = (unit.branch_main for unit in network.features)
    # The main branch of a unit with stride 2 has as many outputs as are not beside it.
    ends = [(strided, 16, 64 - 16, 19), (plain, 32, 32, 51), (last, 64, 160 - 64, 16)]
    for branch, inputs, outputs, mid in ends:
        first, *between, end = [conv for conv in convolutions(branch) if conv.groups == 1]
        assert (first.in_channels, first.out_channels) == (inputs, mid)
        assert (end.in_channels, end.out_channels) == (mid, outputs)
        assert all((conv.in_channels, conv.out_channels) == (mid, mid) for conv in between)
        norms = [norm.num_features for norm in branch if isinstance(norm, nn.BatchNorm2d)]
        assert norms == [conv.out_channels for conv in convolutions(branch)]


def test_names_and_shapes_at_scale_1_are_those_of_the_block_space():
    layers = {f"layer_{i}": choice for i, choice in enumerate(("k7", "xcep", "k3"), 1)}
    expected = build(channel_scales=None, path=layers).state_dict()
    path = layers | {"channels_1": 32, "channels_2": 32, "channels_3": 80}
    alone = build(blocks=list(layers.values()), path={k: v for k, v in path.items() if k[0] == "c"})
    for network in (build(path=path), alone):
        network.load_state_dict(expected, strict=True)
        assert list(network.state_dict()) == list(expected)


def test_only_subnets_have_affine_parameters():
    path = {f"layer_{i}": "k3" for i in (1, 2, 3)}
    path |= {"channels_1": 6, "channels_2": 6, "channels_3": 16}
    networks = [
        (SinglePathOneShot().mutate_model(build()), False),
        (build(path=path), False),
        (build(Form.SUBNET, path=path), True),
        (ShuffleNetV2Space.frozen_factory(path)(**TWO_STAGES, channel_scales=SCALES), True),
    ]
    for network, affine in networks:
        norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        assert len(norms) > 10
        assert {norm.affine for norm in norms} == {affine}


def check_spread(tensor, std):
    """Compare with the standard deviation that the weights were drawn with, as zero-mean normal."""
    measured = tensor.double().square().mean().sqrt()
    assert abs(measured / std - 1) < 5 / (2 * tensor.numel()) ** 0.5


@pytest.mark.parametrize("mutated", [False, True], ids=["network", "supernet"])
def test_initial_weights(mutated):
    torch.manual_seed(0)
    path = {f"layer_{i}": "k3" for i in (1, 2, 3)}
    path |= {"channels_1": 51, "channels_2": 51, "channels_3": 128}
    form, path = (Form.SUPERNET, None) if mutated else (Form.SUBNET, path)
    network = build(form, path=path, affine=True)
    if mutated:
        SinglePathOneShot().mutate_model(network)
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            # The released code: 0.01 in the stem, else one over the inputs of an output.
            inputs = module.weight.shape[1]
            check_spread(module.weight, 0.01 if name.startswith("first_conv") else 1 / inputs)
        elif isinstance(module, nn.BatchNorm2d):
            assert (module.bias == torch.tensor(0.0001)).all()
    check_spread(network.classifier[0].weight, 0.01)
    # Two convolutions outside of units. In a unit three, in xcep six, with stride 2 two more.
    strided, plain = (3 * 5 + 8, 3 * 3 + 6) if mutated else (5, 3)
    assert len(convolutions(network)) == 2 + strided + plain + strided
    assert max(conv.weight.shape[0] for conv in convolutions(network.features[1])) == 51


@pytest.mark.parametrize(
    ("bad", "good", "message"),
    [
        ({"blocks": "k9"}, {"blocks": "k7"}, "blocks: 'k9' is unknown. Blocks: k3, k5, k7, xcep."),
        (
            {"blocks": ["k3", "K5", "k7"]},
            {"blocks": ["k3", "k5", "k7"]},
            "blocks: 'K5' is unknown. Blocks: k3, k5, k7, xcep.",
        ),
        ({"blocks": ["k3"] * 4}, {"blocks": ["k3"] * 3}, "blocks: 4 are given for 3 units."),
        ({"blocks": []}, {"blocks": None}, "blocks: 0 are given for 3 units."),
        (
            {"blocks": "k3", "channel_scales": None},
            {"blocks": "k3"},
            "blocks are given and channel_scales are not: nothing to choose.",
        ),
        (
            {"channels_multiple_of": 8, "channel_scales": None},
            {"channels_multiple_of": 1, "channel_scales": None},
            "channels_multiple_of 8 needs channel_scales to round.",
        ),
        ({"channels_multiple_of": 0}, {"channels_multiple_of": 1}, "multiple_of must be"),
        (
            {"channel_scales": [0.02]},
            {"channel_scales": [0.032]},
            "channel_choice('channels_1'): 32 channels at scale 0.02 are none.",
        ),
        ({"channel_scales": [1, 0]}, {"channel_scales": [1, 2]}, "scales must be numbers above 0"),
        ({"channel_scales": ["1"]}, {"channel_scales": [1]}, "each item a number, or null"),
    ],
    ids=str,
)
def test_arguments(bad, good, message):
    with pytest.raises(RecipeError) as error:
        build(**bad)
    assert str(error.value).startswith("space shufflenet")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    build(**good)
