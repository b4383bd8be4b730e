import pytest
import torch
from small_spaces import set_path
from torch import nn

from nni_spos.errors import RecipeError
from nni_spos.modules.subnet import extract_subnet
from nni_spos.mutables import QuantConv2d, QuantLinear, SwitchableBatchNorm2d
from nni_spos.path import PathSpace
from nni_spos.spaces import Form, ResNetSpace, build_space
from nni_spos.spaces.resnet import BIT_PAIRS, INNER_SCALES, SMALL
from nni_spos.supernet import SinglePathOneShot

PAIRS = ("1w2a", "2w2a", "1w4a", "2w4a", "3w4a", "4w4a")
SMALL_PATH = {f"channels_{i}": width for i, width in enumerate((4, 12, 12, 20, 48, 16), 1)}
SMALL_PATH |= {f"bits_{i}": PAIRS[i - 1] for i in range(1, 7)}


def build(form=Form.SUPERNET, path=None, **arguments):
    return build_space("resnet_small", {"num_classes": 10, **arguments}, form, path=path)


def quantized(module):
    return [layer for layer in module.modules() if hasattr(layer, "clip")]


def norms(module):
    return [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]


def test_labels_and_choices():
    assert BIT_PAIRS == ((1, 2), (2, 2), (1, 4), (2, 4), (3, 4), (4, 4))
    assert INNER_SCALES == (0.5, 0.75, 1.0, 1.25, 1.5)
    space = build(stage_repeats=[1, 2], stage_channels=[10, 21])
    assert dict(PathSpace.from_model_space(space)) == {
        "channels_1": (5, 7, 10, 12, 15),
        "channels_2": (10, 15, 21, 26, 31),
        "channels_3": (10, 15, 21, 26, 31),
        **{f"bits_{i}": PAIRS for i in (1, 2, 3)},
    }


def test_choices_can_be_given():
    space = build(bit_pairs=[[4, 8], [32, 32]], channel_scales=[0.25, 2])
    choices = PathSpace.from_model_space(space)
    assert (choices["bits_6"], choices["channels_6"]) == (("4w8a", "32w32a"), (8, 64))


def test_bits_alone():
    space = build(channel_scales=None)
    assert dict(PathSpace.from_model_space(space)) == {f"bits_{i}": PAIRS for i in range(1, 7)}
    assert [block.main[0].out_channels for block in space.blocks] == [8, 8, 16, 16, 32, 32]


def test_channels_alone():
    space = build(bit_pairs=None)
    assert set(PathSpace.from_model_space(space)) == {f"channels_{i}" for i in range(1, 7)}
    assert not quantized(space)


def test_channels_are_rounded_to_multiples():
    # 16 channels times the scales are 8, 12, 16, 20 and 24; halves of 8 go up.
    space = PathSpace.from_model_space(build(channels_multiple_of=8))
    assert space["channels_3"] == (8, 16, 24)


@pytest.mark.parametrize(
    ("stem", "kernel_size", "outputs"), [("imagenet", (7, 7), (8, 8)), ("small", (3, 3), (32, 32))]
)
def test_stems(stem, kernel_size, outputs):
    space = build(stem=stem).eval()
    assert space.stem[0].kernel_size == kernel_size
    with torch.no_grad():
        assert space.stem(torch.randn(2, 3, 32, 32)).shape == (2, 8, *outputs)


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("resnet18", {64: 2, 128: 2, 256: 2, 512: 2}),
        ("resnet34", {64: 3, 128: 4, 256: 6, 512: 3}),
        ("resnet_small", {8: 2, 16: 2, 32: 2}),
    ],
)
def test_blocks(name, stages):
    space = build_space(name, {}, Form.SUPERNET)
    expected, before = [], next(iter(stages))
    for width, repeats in stages.items():
        for _ in range(repeats):
            expected.append((before, width, 1 if before == width else 2, before != width))
            before = width
    assert [
        (
            block.main[0].in_channels,
            block.main[3].out_channels,
            block.main[0].stride[0],
            len(block.downsample) > 0,
        )
        for block in space.blocks
    ] == expected


def test_a_stage_of_the_same_channels_has_a_convolution_beside_its_stride():
    space = build(stage_repeats=[1, 1], stage_channels=[8, 8])
    assert [len(block.downsample) for block in space.blocks] == [0, 2]


def test_the_network_of_a_path():
    network = build(path=SMALL_PATH)
    assert not network.simplify()
    for i, block in enumerate(network.blocks, 1):
        inner, pair = SMALL_PATH[f"channels_{i}"], SMALL_PATH[f"bits_{i}"]
        conv1, norm1, _, conv2, _ = block.main
        assert (conv1.out_channels, norm1.num_features, conv2.in_channels) == (inner,) * 3
        convs = quantized(block)
        assert len(convs) == (3 if i in (3, 5) else 2)
        assert {f"{conv.weight_bits}w{conv.activation_bits}a" for conv in convs} == {pair}
        assert not any(conv.signed or conv.bias is not None for conv in convs)
    assert len(quantized(network)) == 2 * 6 + 2


def test_a_block_adds_its_input_or_a_projection_of_it():
    torch.manual_seed(0)
    path = {f"bits_{i}": "32w32a" for i in range(1, 7)}
    network = build(path=path, bit_pairs=[[32, 32]], channel_scales=None).eval()
    x = torch.rand(2, 8, 6, 6)
    same, strided = network.blocks[1], network.blocks[2]
    with torch.no_grad():
        torch.testing.assert_close(same(x), (same.main(x) + x).relu())
        conv, norm = strided.downsample
        torch.testing.assert_close(strided(x), (strided.main(x) + norm(conv(x))).relu())
        assert strided(x).shape == (2, 16, 3, 3)


def test_outer_layers_are_plain_by_default():
    space = build()
    assert type(space.stem[0]) is nn.Conv2d
    assert type(space.classifier) is nn.Linear


def test_outer_layers_of_8_bits():
    space = build(outer_bits=8)
    first, last = space.stem[0], space.classifier
    assert isinstance(first, QuantConv2d)
    assert isinstance(last, QuantLinear)
    # Normalized images have both signs; what comes out of the pooling has not.
    assert (first.signed, last.signed) == (True, False)
    x = torch.randn(2, 3, 16, 16)
    for network in (SinglePathOneShot().mutate_model(space), build(outer_bits=8, path=SMALL_PATH)):
        subnet = extract_subnet(network, SMALL_PATH) if network is space else network
        outer = [subnet.stem[0], subnet.classifier]
        assert [(layer.weight_bits, layer.activation_bits) for layer in outer] == [(8, 8)] * 2
        assert len(quantized(subnet)) == 2 * 6 + 2 + 2
        assert subnet.eval()(x).shape == (2, 10)


@pytest.mark.parametrize("quantizer", ["dorefa", "symmetric"])
def test_a_quantizer_for_all_layers(quantizer):
    pairs = [[2, 2], [4, 8], [8, 8]]
    space = build(quantizer=quantizer, bit_pairs=pairs, outer_bits=8)
    path = SMALL_PATH | {f"bits_{i}": ("2w2a", "4w8a", "8w8a")[i % 3] for i in range(1, 7)}
    network = build(quantizer=quantizer, bit_pairs=pairs, outer_bits=8, path=path)
    supernet = SinglePathOneShot().mutate_model(space)
    subnet = extract_subnet(supernet, path)
    assert {layer.quantizer for layer in quantized(subnet)} == {quantizer}
    network.load_state_dict(subnet.state_dict())
    x = torch.randn(2, 3, 16, 16)
    set_path(supernet.eval(), path)
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(x), subnet.eval()(x))
        torch.testing.assert_close(supernet(x), subnet(x))


def test_norms_of_their_own_for_every_pair():
    supernet = SinglePathOneShot().mutate_model(build(switchable_norm=True, affine=True))
    for block in supernet.blocks:
        assert set(block.main[1].sets) == set(block.main[4].sets) == set(PAIRS)
    assert type(supernet.stem[1]) is nn.BatchNorm2d
    space = build(switchable_norm=True, affine=True, norm_per="activation_bits")
    for block in SinglePathOneShot().mutate_model(space).blocks:
        assert set(block.main[1].sets) == set(block.main[4].sets) == {"2a", "4a"}
    assert any(isinstance(m, SwitchableBatchNorm2d) for m in build(switchable_norm=True).modules())
    shared = SinglePathOneShot().mutate_model(build(affine=True))
    assert not any(hasattr(norm, "sets") for norm in norms(shared))


def test_only_subnets_have_affine_parameters():
    networks = [
        (build(), False),
        (build(path=SMALL_PATH), False),
        (build(Form.SUBNET, path=SMALL_PATH), True),
        (ResNetSpace.frozen_factory(SMALL_PATH)(**SMALL), True),
    ]
    for network, affine in networks:
        assert len(norms(network)) == 1 + 2 * 6 + 2
        assert {norm.affine for norm in norms(network)} == {affine}


@pytest.mark.parametrize("form", ["network", "supernet"])
def test_initial_weights(form):
    torch.manual_seed(0)
    widest = {f"channels_{i}": width for i, width in enumerate((12, 12, 24, 24, 48, 48), 1)}
    network = build(path=None if form == "supernet" else SMALL_PATH | widest)
    if form == "supernet":
        SinglePathOneShot().mutate_model(network)
    convs = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    assert len(convs) == 1 + 2 * 6 + 2
    for conv in convs:
        weight = conv.weight.detach()
        # He et al.: the variance is 2 over the number of outputs that an input goes into.
        std = (2 / (weight.shape[0] * weight[0, 0].numel())) ** 0.5
        # Five standard errors of the standard deviation of a normal distribution.
        assert abs(weight.square().mean().sqrt() / std - 1) < 5 / (2 * weight.numel()) ** 0.5
    assert [block.main[0].weight.shape[0] for block in network.blocks] == list(widest.values())


@pytest.mark.parametrize(
    ("bad", "good", "message"),
    [
        ({"num_classes": 0}, {"num_classes": 1}, "num_classes must be at least 1, got 0."),
        ({"in_channels": 0}, {"in_channels": 1}, "in_channels must be at least 1, got 0."),
        ({"input_size": 0}, {"input_size": 1}, "input_size must be a whole number > 0,"),
        ({"stem": "tiny"}, {"stem": "small"}, "stem 'tiny' is unknown. Stems: imagenet, small."),
        ({"stage_repeats": [2, 2]}, {"stage_repeats": [1, 2, 3]}, "must have the same length"),
        ({"stage_repeats": [2, 0, 2]}, {"stage_repeats": [1, 1, 1]}, "at least one block"),
        ({"stage_channels": [8, 0, 8]}, {"stage_channels": [8, 2, 8]}, "one block and channel."),
        (
            {"stage_repeats": [], "stage_channels": []},
            {"stage_repeats": [1], "stage_channels": [8]},
            "at least one block",
        ),
        (
            {"bit_pairs": None, "channel_scales": None},
            {"bit_pairs": None},
            "bit_pairs and channel_scales are both None: nothing to choose.",
        ),
        (
            {"bit_pairs": [[2, 2, 2]]},
            {"bit_pairs": [[2, 2]]},
            "bit_pairs: [2, 2, 2] is not a pair of bit widths such as [2, 4].",
        ),
        ({"bit_pairs": [2, 4]}, {"bit_pairs": [(2, 4)]}, "each item a list"),
        ({"bit_pairs": [[2.5, 4]]}, {"bit_pairs": [[2, 4]]}, "each item a whole number"),
        ({"bit_pairs": ["24"]}, {"bit_pairs": [[2, 4]]}, "bit_pairs: got ['24']"),
        ({"bit_pairs": [[2, 9]]}, {"bit_pairs": [[2, 8]]}, "for full precision, got 9."),
        ({"bit_pairs": [[1, 2]] * 2}, {"bit_pairs": [[1, 2], [2, 1]]}, "1w2a occurs twice"),
        ({"outer_bits": 1}, {"outer_bits": 2}, "1 bit cannot hold signed activations"),
        ({"outer_bits": 16}, {"outer_bits": 32}, "for full precision, got 16."),
        (
            {"switchable_norm": True, "bit_pairs": None},
            {"switchable_norm": False, "bit_pairs": None},
            "switchable_norm needs bit_pairs to switch between.",
        ),
        (
            {"norm_per": "activation_bits"},
            {"norm_per": "activation_bits", "switchable_norm": True},
            "norm_per activation_bits needs switchable_norm.",
        ),
        ({"norm_per": "bits"}, {"norm_per": "pair"}, "per must be pair or activation_bits, got"),
        (
            {"channels_multiple_of": 4, "channel_scales": None},
            {"channels_multiple_of": 1, "channel_scales": None},
            "channels_multiple_of 4 needs channel_scales to round.",
        ),
        (
            {"quantizer": "symmetric"},
            {"quantizer": "symmetric", "bit_pairs": [[2, 2], [8, 8]]},
            "quantizer symmetric has no 1-bit weights. Give bit_pairs such as",
        ),
        (
            {"quantizer": "symmetric", "bit_pairs": None},
            {"quantizer": "symmetric", "bit_pairs": None, "outer_bits": 8},
            "quantizer symmetric needs bit_pairs or outer_bits.",
        ),
        (
            {"quantizer": "lsq"},
            {"quantizer": "dorefa"},
            "unknown quantizer 'lsq'. Quantizers: dorefa, symmetric.",
        ),
        ({"channels_multiple_of": 0}, {"channels_multiple_of": 8}, "multiple_of must be"),
        ({"channel_scales": [0.1]}, {"channel_scales": [0.125]}, "channels at scale 0.1 are none"),
    ],
    ids=str,
)  # fmt: skip
def test_arguments(bad, good, message):
    with pytest.raises(RecipeError) as error:
        build(**bad)
    assert str(error.value).startswith("space resnet_small")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    space = build(**good)
    sample = {label: choices[0] for label, choices in PathSpace.from_model_space(space).items()}
    network = build(**good, path=sample).eval()
    size = min(space.input_size, 16)
    with torch.no_grad():
        assert network(torch.randn(1, space.in_channels, size, size)).shape == (
            1,
            space.num_classes,
        )
