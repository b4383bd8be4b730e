"""Strategies of NNI with our layers, and what NNI's own layers cannot do."""

from __future__ import annotations

import pytest
import torch
from nni.nas.evaluator.pytorch import Classification, DataLoader
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.nn.pytorch import LayerChoice
from nni.nas.oneshot.pytorch.supermodule.operation import MixedConv2d
from nni.nas.space import RawFormatModelSpace
from nni.nas.strategy import DARTS, GumbelDARTS, Proxyless, RandomOneShot
from small_spaces import (
    Chain,
    Net,
    assert_close,
    build_supernet,
    choose,
    images,
    paths_of,
    set_path,
    state_of,
)
from torch import nn
from torch.utils.data import TensorDataset

from nni_spos.errors import SpaceError
from nni_spos.modules.subnet import extract_subnet
from nni_spos.mutables import (
    MutableBatchNorm2d,
    MutableConv2d,
    MutableLinear,
    QuantConv2d,
    QuantLinear,
    SwitchableBatchNorm2d,
    bits_choice,
    mutation_hooks,
    sliced_operations,
)
from nni_spos.path import PathSpace
from nni_spos.supernet import SinglePathOneShot


def conv_without_bias():
    return MutableConv2d(2, choose("w", 2, 4), 3, bias=False)


def norm_without_weights():
    return MutableBatchNorm2d(choose("w", 2, 4), affine=False)


def quantized():
    return QuantConv2d(2, choose("w", 2, 4), 3, activation_bits=choose("a", 2, 4))


OURS = {
    "RandomOneShot with our hooks": lambda: RandomOneShot(mutation_hooks=mutation_hooks()),
    "SinglePathOneShot": SinglePathOneShot,
}
ours = pytest.mark.parametrize("make_strategy", OURS.values(), ids=OURS)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (conv_without_bias, RuntimeError, r'Unexpected key\(s\) in state_dict: "bias"'),
        (norm_without_weights, TypeError, "'NoneType' object is not subscriptable"),
    ],
)
def test_these_layers_of_nni_cannot_be_frozen(make, error, words):
    supernet = RandomOneShot().mutate_model(Chain(make))
    with pytest.raises(error, match=words):
        supernet.freeze({"w": 2})


def test_nni_does_not_know_quantized_layers():
    with pytest.raises(TypeError, match=r"`layers\.0` of type `QuantConv2d` has dangling mutables"):
        RandomOneShot().mutate_model(Chain(quantized))


@ours
@pytest.mark.parametrize("make", [conv_without_bias, norm_without_weights, quantized])
def test_ours_can_be_frozen(make, make_strategy):
    supernet = make_strategy().mutate_model(Chain(make)).eval()
    for path in paths_of(supernet):
        frozen = supernet.freeze(path)
        x = images(2, path["w"] if make is norm_without_weights else 2, 5, 5).abs()
        assert_close(supernet(x), frozen(x))
        assert frozen(x).shape[1] == path["w"]


@ours
def test_ours_take_the_place_of_every_layer_with_choices(make_strategy):
    bits = bits_choice("b", [(2, 4), (4, 4)])
    width, pair = choose("w", 2, 4), {"weight_bits": bits.weight, "activation_bits": 4}
    makers = (
        lambda: MutableConv2d(1, width, 1),
        lambda: MutableBatchNorm2d(width),
        lambda: LayerChoice(
            {"a": MutableConv2d(width, 4, 1), "b": QuantConv2d(width, 4, 1, **pair)}, label="u"
        ),
        lambda: SwitchableBatchNorm2d(4, **pair),
        nn.Flatten,
        lambda: MutableLinear(16, width),
        lambda: QuantLinear(width, 3, **pair),
    )
    supernet = make_strategy().mutate_model(Chain(*makers))
    names = [type(operation).__name__ for _, operation in sliced_operations(supernet)]
    assert names == [
        "SlicedConv2d", "SlicedBatchNorm2d", "SlicedConv2d", "SlicedQuantConv2d",
        "SlicedSwitchableBatchNorm2d", "SlicedLinear", "SlicedQuantLinear",
    ]  # fmt: skip
    assert {type(m) for m in supernet.modules()} & {MixedConv2d, MutableConv2d} == set()


@ours
def test_layers_without_choices_become_plain_ones_as_they_are(make_strategy):
    space = Chain(lambda: MutableConv2d(1, choose("w", 2, 4), 1), lambda: MutableConv2d(1, 3, 1))
    layer, weight = space.layers[1], space.layers[1].weight
    supernet = make_strategy().mutate_model(space)
    assert supernet.layers[1] is layer
    assert type(layer) is nn.Conv2d
    assert layer.weight is weight
    frozen = supernet.freeze({"w": 4})
    assert torch.equal(frozen.layers[1].weight, supernet.layers[1].weight)


@ours
def test_the_mode_of_a_layer_stays(make_strategy):
    for training in (True, False):
        space = Chain(lambda: MutableBatchNorm2d(choose("w", 2, 4))).train(training)
        assert make_strategy().mutate_model(space).layers[0].training == training


class Train:
    """NNI's evaluator on random images of one channel and three classes."""

    def __init__(self, folder):
        data = TensorDataset(images(8, 1, 5, 5), torch.arange(8) % 3)
        loader = DataLoader(data, batch_size=4)
        self.evaluator = Classification(
            learning_rate=0.1, num_classes=3, train_dataloaders=loader, val_dataloaders=loader,
            max_steps=4, accelerator="cpu", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
            limit_val_batches=0, default_root_dir=folder,
        )  # fmt: skip

    def __call__(self, strategy):
        width = choose("w", 2, 4)
        space = Chain(
            lambda: MutableConv2d(1, width, 3, bias=False),
            lambda: MutableBatchNorm2d(width, affine=False),
            nn.ReLU,
            lambda: QuantConv2d(width, 3, 3, activation_bits=choose("a", 2, 4)),
            nn.Flatten,
        )
        model = RawFormatModelSpace.from_model(space, self.evaluator)
        strategy(model, SequentialExecutionEngine())
        return strategy.supernet


@ours
def test_a_supernet_is_trained_and_an_arbitrary_path_exported(make_strategy, tmp_path):
    strategy = make_strategy()
    supernet = Train(tmp_path)(strategy)
    assert all(p.isfinite().all() for p in supernet.parameters())
    (model,) = strategy.list_models()
    space = PathSpace.from_model_space(supernet)
    assert dict(space) == {"w": (2, 4), "a": (2, 4)}
    assert space.validate(model.sample) == model.sample
    x = images(2, 1, 5, 5)
    set_path(supernet.eval(), model.sample)
    assert_close(supernet(x), extract_subnet(supernet, model.sample)(x))


@pytest.mark.parametrize("strategy", [DARTS, GumbelDARTS, Proxyless])
@pytest.mark.parametrize("make", [conv_without_bias, norm_without_weights, quantized])
def test_strategies_that_sum_over_choices_are_refused(strategy, make):
    with pytest.raises(SpaceError) as caught:
        strategy(mutation_hooks=mutation_hooks()).mutate_model(Chain(make))
    assert str(caught.value) == (
        "layer 'layers.0': strategies that sum over choices (MixedOpDifferentiablePolicy) are not "
        "supported. Use SinglePathOneShot or another strategy that samples paths."
    )


def test_a_path_that_leaves_labels_out_is_completed():
    supernet = build_supernet(conv_without_bias, lambda: QuantConv2d(4, choose("d", 1, 2, 3), 1))
    layer = supernet.layers[1]
    drawn = {layer.resample(memo={"w": 4})["d"] for _ in range(60)}
    assert drawn == {1, 2, 3}
    assert layer.resample(memo={"d": 2, "other": 1}) == {"d": 2}
    assert layer.export(memo={"d": 2}) == {}
    assert {layer.export(memo={})["d"] for _ in range(60)} == {1, 2, 3}
    assert layer.part.arguments["out_channels"] == 2


@pytest.mark.parametrize("num_paths", [1, 2])
def test_larger_layers_begin_with_what_the_space_sets(num_paths):
    space = Net(lambda: MutableConv2d(1, choose("w", *range(2, 2 + num_paths)), 1))
    supernet = SinglePathOneShot().mutate_model(space)
    assert supernet is space
    assert supernet.layers[0].weight.flatten().tolist() == [0.25] * (1 + num_paths)


def test_a_space_without_such_layers_keeps_the_weights_that_it_has():
    units = {"a": nn.Conv2d(1, 2, 1), "b": nn.Conv2d(1, 2, 3, padding=1)}
    space = Net(lambda: LayerChoice(units, label="u"))
    with torch.no_grad():
        units["a"].weight.fill_(3)
    SinglePathOneShot().mutate_model(space)
    assert units["a"].weight.flatten().tolist() == [3, 3]


def test_a_second_mutation_leaves_a_supernet_alone():
    space = Net(conv_without_bias, nn.ReLU, quantized)
    SinglePathOneShot().mutate_model(space)
    set_path(space, {"w": 4, "a": 2})
    with torch.no_grad():
        space.layers[0].weight.normal_()
    before, modules = state_of(space), list(space.modules())
    assert SinglePathOneShot().mutate_model(space) is space
    assert list(space.modules()) == modules
    after = space.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(before[name], after[name]) for name in before)
