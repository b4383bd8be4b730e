"""Recalibration and scoring of a path, and that the supernet does not notice."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nni_spos.data import open_data
from nni_spos.errors import DataError, PathError
from nni_spos.modules.subnet import extract_subnet
from nni_spos.path import PathSpace
from nni_spos.recipe.data_settings import DataSettings
from nni_spos.recipe.search_settings import EvaluationSettings
from nni_spos.scoring.evaluation import evaluate_path, score
from nni_spos.scoring.recalibration import recalibrate
from nni_spos.spaces import ShuffleNetV2Space

SETTINGS = EvaluationSettings(recalibration_images=300, batch_size=100)


@pytest.fixture(scope="module")
def data():
    return open_data(DataSettings("digits"))


@pytest.fixture
def supernet():
    torch.manual_seed(0)
    return ShuffleNetV2Space.small(num_classes=10, input_size=16, in_channels=1)


def a_path(choice: str) -> dict[str, str]:
    return {f"layer_{i}": choice for i in range(1, 9)}


def state(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def test_statistics_are_the_average_over_batches():
    torch.manual_seed(0)
    network = nn.Sequential(nn.BatchNorm2d(2, momentum=0.3), nn.Dropout(0.5))
    network.eval()
    images = torch.randn(20, 2, 4, 4) * 3 + 5
    batches = [(images[:10], None), (images[10:], None)]

    assert recalibrate(network, batches) == 20

    means = torch.stack([part.mean((0, 2, 3)) for part, _ in batches]).mean(0)
    variances = torch.stack([part.var((0, 2, 3)) for part, _ in batches]).mean(0)
    torch.testing.assert_close(network[0].running_mean, means)
    torch.testing.assert_close(network[0].running_var, variances)
    assert network[0].momentum == 0.3
    assert not any(module.training for module in network.modules())


def test_recalibration_forgets_what_was_there_and_restores_modes(supernet, data):
    batches = list(data.recalibration_batches(200, 100, 0))
    fresh, used = (extract_subnet(supernet, a_path("k3")) for _ in range(2))
    used.train()
    used.first_conv[1].running_mean.fill_(100.0)
    for network in (fresh, used):
        recalibrate(network, batches)
    assert used.training
    for name, tensor in fresh.state_dict().items():
        assert torch.equal(tensor, used.state_dict()[name]), name


def test_an_error_leaves_modes_and_momentum_as_they_were(supernet):
    network = extract_subnet(supernet, a_path("k3")).train()
    with pytest.raises(RuntimeError):
        recalibrate(network, [(torch.zeros(2, 7, 16, 16), None)])
    assert all(module.training for module in network.modules())
    assert network.first_conv[1].momentum == 0.1
    with pytest.raises(DataError, match="at least one image"):
        recalibrate(network, [])


def test_score_by_hand():
    logits = torch.tensor([[9.0, 8, 7, 6, 5, 4], [9, 8, 7, 6, 5, 4], [9, 8, 7, 6, 5, 4]])
    labels = torch.tensor([0, 4, 5])  # first, among five, not among five
    result = score(nn.Flatten(), [(logits[:2, :, None, None], labels[:2]),
                                  (logits[2:, :, None, None], labels[2:])])  # fmt: skip
    assert result.num_images == 3
    assert result.top1 == pytest.approx(100 / 3)
    assert result.top5 == pytest.approx(200 / 3)
    assert result.loss == pytest.approx(float(nn.functional.cross_entropy(logits, labels)))
    with pytest.raises(DataError, match="at least one image"):
        score(nn.Flatten(), [])


def test_supernet_is_unchanged_and_order_does_not_matter(supernet, data):
    before = state(supernet)
    forward = [evaluate_path(supernet, a_path(c), data, SETTINGS) for c in ("k3", "k5", "k3")]
    backward = [evaluate_path(supernet, a_path(c), data, SETTINGS) for c in ("k5", "k3")]
    assert forward[0] == forward[2] == backward[1]
    assert forward[1] == backward[0]
    assert forward[0] != forward[1]
    assert forward[0].num_images == data.num_validation
    for name, tensor in supernet.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_inherited_statistics_are_another_score(supernet, data):
    inherit = EvaluationSettings(recalibrate=False, batch_size=100)
    inherited = evaluate_path(supernet, a_path("k3"), data, inherit)
    assert inherited == score(extract_subnet(supernet, a_path("k3")), data.validation_batches(100))
    assert inherited != evaluate_path(supernet, a_path("k3"), data, SETTINGS)


def test_subnet_shares_no_storage(supernet):
    subnet = extract_subnet(supernet, a_path("k5"))
    shared = {t.data_ptr() for t in supernet.state_dict().values() if t.numel()}
    assert not shared & {t.data_ptr() for t in subnet.state_dict().values() if t.numel()}


def test_a_path_of_another_space_is_refused(supernet):
    assert PathSpace.from_model_space(supernet).size == 4**8
    with pytest.raises(PathError, match="'k9' is not a choice"):
        extract_subnet(supernet, {**a_path("k3"), "layer_2": "k9"})
