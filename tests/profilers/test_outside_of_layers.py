"""What a space computes outside of layers counts as in the networks of its paths, or is refused."""

import math
import threading

import nni
import pytest
import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from nni.nas.space import model_context
from small_networks import IMAGE, MACS, Small, features, small
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from nni_spos.errors import CostError
from nni_spos.metrics import LayerMetric
from nni_spos.mutables import MutableConv2d, MutableLinear
from nni_spos.path import PathSpace
from nni_spos.profilers import build_costs
from nni_spos.supernet import SinglePathOneShot


def refusal(space, image=IMAGE):
    with pytest.raises(CostError) as error:
        build_costs(space, image)
    assert "\n" not in str(error.value)
    return str(error.value)


def line_of(function, offset=1):
    return function.__code__.co_firstlineno + offset


class Attention(nn.Module):
    """Attention as people write it."""

    def __init__(self, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(4, 12)
        self.out = nn.Linear(4, 4)

    def forward(self, x):
        queries, keys, values = self.qkv(x.flatten(2).mT).chunk(3, -1)
        split = [part.unflatten(-1, (self.heads, -1)).mT.mT for part in (queries, keys, values)]
        queries, keys, values = (part.transpose(1, 2) for part in split)
        pairs = (queries @ keys.mT).softmax(-1) @ values
        return self.out(pairs.transpose(1, 2).flatten(2)).mT.reshape(x.shape)


class Transformer(Small):
    """Units of attention and convolutions, one inside of another, and a product beside them."""

    def build(self):
        self.mix = nn.Parameter(torch.ones(16, 16))
        inner = LayerChoice({"one": Attention(1), "two": Attention(2)}, label="heads")
        blocks = {"attention": nn.Sequential(nn.ReLU(), inner), "conv": nn.Conv2d(4, 4, 1)}
        self.block = LayerChoice(blocks, label="block")

    def body(self, x):
        x = self.block(features(self, x))
        return (x.flatten(2) @ self.mix).view(x.shape)


def real_macs(space, path, image=IMAGE):
    with model_context(path):
        network = space()
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network.eval()(torch.rand(1, *image))
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("mutated", [False, True], ids=["space", "supernet"])
def test_attention_in_units(mutated):
    space = SinglePathOneShot().mutate_model(Transformer()) if mutated else Transformer()
    table = build_costs(space, IMAGE)["flops"]
    paths = PathSpace.from_model_space(Transformer())
    for path in paths.decode(paths.enumerate()):
        assert table.price(path) == real_macs(Transformer, path), path
    # 16 positions: to 12 and from 4 features, all pairs twice; and the mix for each channel.
    path = {"unit": "k1", "block": "attention", "heads": "one"}
    attention = 16 * 4 * (12 + 4) + 2 * 16 * 16 * 4
    assert table.price(path) == MACS["k1"] + attention + 4 * 16 * 16


class Wide(ModelSpace):
    """The channels of two layers are a choice."""

    def __init__(self):
        super().__init__()
        width = nni.choice("width", [2, 4])
        self.stem = MutableConv2d(1, width, 3)
        self.head = MutableLinear(width, 5)
        self.fixed = nn.Linear(5, 5)
        self.build()

    def build(self):
        """Add to the space."""

    def body(self, x):
        return x

    def forward(self, x):
        return self.fixed(self.head(self.body(self.stem(x)).mean((2, 3))))


BASE = {2: 36 * 2 * 9 + 2 * 5 + 25, 4: 36 * 4 * 9 + 4 * 5 + 25}


def flops_by_width(space):
    table = build_costs(space, IMAGE)["flops"]
    return {width: table.price({"width": width}) for width in BASE}


def test_products_whose_sizes_follow_a_choice_are_refused():
    class Pairs(Wide):
        def body(self, x):
            return (x.flatten(2) @ x.flatten(2).mT).unsqueeze(3)

    assert refusal(Pairs()) == (
        "the space: its multiply-adds (aten.bmm (test_outside_of_layers.py, line "
        f"{line_of(Pairs.body)})) depend on choices elsewhere. Make the numbers that it depends on "
        "choices of its own, with the classes of nni_spos.mutables."
    )

    class Pixels(Wide):
        def body(self, x):
            pixels = x.mean(1).flatten(1)
            return x * (pixels @ pixels.mT)

    assert flops_by_width(Pixels()) == {width: macs + 36 for width, macs in BASE.items()}


class Attends(nn.Module):
    """Its products have one size, whatever the channels of its input are."""

    def __init__(self, width):
        super().__init__()
        self.project = MutableLinear(width, 2)

    def forward(self, x):
        few = self.project(x.flatten(2).mT)
        return x * ((few @ few.mT).softmax(-1) @ few).mean((1, 2)).view(-1, 1, 1, 1)


class Outputs(LayerMetric):
    name = "outputs"

    def of_layer(self, layer):
        return math.prod(layer.output_shape)


def test_products_of_one_size_behind_a_choice():
    class Attending(Wide):
        def build(self):
            self.attend = Attends(nni.choice("width", [2, 4]))

        def body(self, x):
            return self.attend(x)

    pairs = 2 * 36 * 36 * 2
    expected = {width: macs + 36 * width * 2 + pairs for width, macs in BASE.items()}
    assert flops_by_width(Attending()) == expected
    with pytest.raises(CostError, match=r"'attend' \(Attends\): its outputs \(.*\) depend on"):
        build_costs(Attending(), IMAGE, [Outputs()])


def test_products_for_some_choices_only_are_refused():
    class Some(Wide):
        def forward(self, x):
            x = super().forward(x)
            return x @ x.mT if self.stem(torch.ones_like(x[None, :, :3])).shape[1] > 2 else x

    class Few(Wide):
        def body(self, x):
            if x.shape[1] > 2:
                pixels = x.mean(1).flatten(1)
                return x * (pixels @ pixels.mT)
            return x

    assert refusal(Few()) == (
        "the space calls other layers for other choices, which cannot be counted."
    )


def test_the_weights_of_a_layer_with_choices():
    class Shared(Wide):
        """In the supernet this is all of the weight, in a network its own."""

        def forward(self, x):
            x = super().forward(x)
            return x + F.linear(torch.ones(1, 5, device=x.device), self.head.weight.mT).sum()

    message = refusal(Shared())
    line = line_of(Shared.forward, 2)
    assert message.startswith("the network of a path does 693 multiply-adds, and 703 by what the")
    assert f"(aten.mm (test_outside_of_layers.py, line {line})) depends on choices in" in message

    class Own(Wide):
        def forward(self, x):
            x = super().forward(x)
            return x + F.linear(torch.ones(1, 5, device=x.device), self.fixed.weight).sum()

    assert flops_by_width(Own()) == {width: macs + 25 for width, macs in BASE.items()}


class Kept(Small):
    def build(self):
        self.function = self.keep()

    def body(self, x):
        return self.function(self.stem(x))


class KeptFunction(Kept):
    def keep(self):
        unit = self.unit
        return lambda x: unit(x)


class KeptMethod(Kept):
    def keep(self):
        return self.unit.forward


class KeptLayer(Small):
    """A function that holds a layer without choices."""

    def build(self):
        more = self.more = nn.Conv2d(4, 4, 1)
        self.function = lambda x: more(x)

    def body(self, x):
        return self.function(features(self, x))


@pytest.mark.parametrize("space", [KeptFunction, KeptMethod])
def test_units_that_a_kept_function_holds_are_refused(space):
    message = refusal(space())
    assert "multiply-adds, and" in message
    assert "such as by layers that a kept function or bound method holds" in message


def test_layers_that_a_kept_function_holds_count():
    table = build_costs(KeptLayer(), IMAGE)["flops"]
    assert {x: table.price({"unit": x}) - 256 for x in MACS} == MACS


class Given(Small):
    def __init__(self, given, has_product):
        super().__init__()
        self.has_product = has_product

    def body(self, x):
        x = features(self, x)
        return x @ x if self.has_product else x


def test_a_constructor_that_cannot_be_called_again():
    lock = threading.Lock()
    assert refusal(Given(lock, True)).startswith(
        "what the space computes outside of its layers can"
    )
    table = build_costs(Given(lock, False), IMAGE)["flops"]
    assert {x: table.price({"unit": x}) for x in MACS} == MACS
    table = build_costs(Given(None, True), IMAGE)["flops"]
    assert {x: table.price({"unit": x}) - 4 * 64 for x in MACS} == MACS


class Cautious(Small):
    """Its constructor asks for values, which the meta device has not."""

    def build(self):
        self.scale = float(torch.ones(3).sum())

    def body(self, x):
        x = features(self, x)
        return x @ x


def test_a_constructor_that_asks_for_values():
    table = build_costs(Cautious(), IMAGE)["flops"]
    assert {x: table.price({"unit": x}) - 4 * 64 for x in MACS} == MACS


def test_products_in_hooks():
    def multiply(layer, inputs, output):
        rows = output.flatten(1)
        return output * (rows @ rows.mT).view(-1)[0]

    class Hooked(Wide):
        def build(self):
            self.head.register_forward_hook(multiply)

    class HookedBeside(Wide):
        def build(self):
            self.fixed.register_forward_hook(multiply)

    assert refusal(Hooked()) == (
        "layer 'head': its hooks compute aten.mm (test_outside_of_layers.py, line "
        f"{line_of(multiply, 2)}), which cannot be counted by choice. Compute it in a module of "
        "its own."
    )
    assert flops_by_width(HookedBeside()) == {width: macs + 5 for width, macs in BASE.items()}


def test_an_operator_that_cannot_be_counted_is_told_with_its_layer():
    space = small(
        lambda space, x: space.last(features(space, x)), last=lambda: nn.Sequential(Fft())
    )
    assert refusal(space()).startswith(
        "layer 'last.0' (Fft) calls aten._fft_c2c (test_outside_of_layers.py, line "
        f"{line_of(Fft.forward)}), whose"
    )


class Fft(nn.Module):
    def forward(self, x):
        return torch.fft.fft2(x).real
