"""Networks that nobody here wrote have the right scores and costs, or are refused or told of."""

from __future__ import annotations

import warnings
from collections import Counter

import numpy as np
import pytest
import torch
from nni.nas.nn.pytorch import LayerChoice
from nni.nas.space import model_context
from random_networks import RandomNetwork
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from nni_spos.data import dataset_spec
from nni_spos.data.generated import GeneratedData
from nni_spos.errors import CostError
from nni_spos.modules.subnet import extract_subnet
from nni_spos.mutables.quantization import Quantized
from nni_spos.path import PathSpace
from nni_spos.profilers import build_costs
from nni_spos.recipe.data_settings import DataSettings
from nni_spos.recipe.search_settings import EvaluationSettings
from nni_spos.scoring.evaluation import evaluate_path, evaluate_paths
from nni_spos.supernet import SinglePathOneShot
from nni_spos.supernet.faithfulness import find_difference

NUMBER, PART = 304, 38
SPEC = dataset_spec(DataSettings("digits"))
SETTINGS = EvaluationSettings(recalibration_images=32, batch_size=16)
SHARED, ONE_BY_ONE, REFUSED = "together", "one by one", "refused"


def images():
    return GeneratedData(SPEC, 32, 32)


def build_network(number, path):
    """NNI's own network of a path."""
    torch.manual_seed(number)
    with model_context(dict(path)):
        return RandomNetwork(number)


def count(network):
    """Count multiply-adds by PyTorch's operators, and parameters by identity."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network.eval()(torch.zeros(1, *SPEC.input_shape))
    return counter.get_total_flops() // 2, sum(p.numel() for p in network.parameters())


def evaluate_by_hand(network, data):
    """Recalibrate by PyTorch's own cumulative averages, and return the mean loss."""
    network.eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
            module.train()
    with torch.no_grad():
        for batch, _ in data.recalibration_batches(32, 16, 0):
            network(batch.clone())
        network.eval()
        total = sum(
            float(functional.cross_entropy(network(batch.clone()), labels, reduction="sum"))
            for batch, labels in data.validation_batches(16)
        )
    return total / data.num_validation


def check_costs(number, paths):
    """Whether costs are given; they are right then."""
    try:
        costs = build_costs(RandomNetwork(number), SPEC.input_shape)
    except CostError:
        return False
    for path in paths:
        macs, params = count(build_network(number, path))
        assert (costs["flops"].price(path), costs["params"].price(path)) == (macs, params), path
    return True


def build_supernet(number):
    torch.manual_seed(number)
    return SinglePathOneShot().mutate_model(RandomNetwork(number))


def differences(number, paths):
    supernet = build_supernet(number)
    for path in paths:
        batch = next(iter(images().validation_batches(4)))[0]
        yield find_difference(supernet, path, build_network(number, path), batch.clone())


def check_scores(number, paths):
    """How paths are scored; in each way they get what their networks get."""
    try:
        if any(differences(number, paths)):
            return REFUSED
    except RuntimeError:  # the networks themselves cannot be trained
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            all(differences(number, paths))
        return REFUSED
    supernet = build_supernet(number)
    with torch.no_grad():
        for tensor in supernet.parameters():
            tensor.add_(0.02 * torch.randn_like(tensor))  # so that no layer is like another
    weights = [extract_subnet(supernet, path).state_dict() for path in paths]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        together = evaluate_paths(supernet, paths, images(), SETTINGS)
    is_quantized = any(isinstance(module, Quantized) for module in supernet.modules())
    tolerance = 5e-2 if is_quantized else 2e-3
    for path, weight, one in zip(paths, weights, together, strict=True):
        network = build_network(number, path)
        network.load_state_dict(weight)
        by_hand = evaluate_by_hand(network, images())
        alone = evaluate_path(supernet, path, images(), SETTINGS).loss
        assert alone == pytest.approx(by_hand, rel=tolerance), path
        assert one.loss == pytest.approx(by_hand, rel=tolerance), path
    reasons = [str(w.message) for w in caught if "one by one" in str(w.message)]
    assert len(reasons) <= 1
    return ONE_BY_ONE if reasons else SHARED


def choose_paths(number):
    """Every choice, and one path that is drawn."""
    space = PathSpace.from_model_space(RandomNetwork(number))
    drawn = np.random.default_rng(number).integers(space.num_choices)
    return space.covering() + space.decode([drawn])


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, NUMBER, PART))
def test_scores_and_costs_are_those_of_the_networks(first):
    ways, counted, features = Counter(), 0, Counter()
    for number in range(first, first + PART):
        paths = choose_paths(number)
        try:
            has_costs, way = check_costs(number, paths), check_scores(number, paths)
        except BaseException as problem:
            raise AssertionError(f"network {number}: {RandomNetwork(number).features}") from problem
        ways[way] += 1
        counted += has_costs
        if way != REFUSED and has_costs:
            features.update(RandomNetwork(number).features)
    print(dict(ways), counted, features)
    # It would prove nothing if most networks were refused.
    assert ways[SHARED] >= PART // 10
    assert ways[ONE_BY_ONE] >= PART // 10
    assert ways[REFUSED] <= PART // 3
    assert counted >= PART // 2


def test_a_network_can_be_built_again():
    one, other = RandomNetwork(3), RandomNetwork(3)
    assert one.features == other.features
    assert str(one) == str(other)
    assert any(isinstance(module, LayerChoice) for module in one.modules())
