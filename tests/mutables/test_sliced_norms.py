"""BatchNorm that shares its tensors: against ``nn.BatchNorm2d`` with the tensors cut by hand."""

from __future__ import annotations

import itertools

import pytest
import torch
from small_spaces import assert_close, build_supernet, choose, images, paths_of, set_path, state_of
from torch import nn

from nni_spos.modules.subnet import extract_subnet
from nni_spos.mutables import MutableBatchNorm2d

WIDTHS = (2, 4, 5)
FORMS = [
    {"affine": affine, "track_running_stats": track, "momentum": momentum, "eps": eps}
    for affine, track, (momentum, eps) in itertools.product(
        (True, False), (True, False), ((0.1, 1e-5), (0.3, 0.5), (None, 1e-5))
    )
]
TENSORS = ("weight", "bias", "running_mean", "running_var")


@pytest.fixture(params=FORMS, ids=lambda form: ", ".join(f"{k}={v}" for k, v in form.items()))
def form(request):
    return request.param


@pytest.fixture
def supernet(form):
    return build_supernet(lambda: MutableBatchNorm2d(choose("w", *WIDTHS), **form))


def cut(norm, width, form):
    """Return a BatchNorm with the first features of the largest one, and as many steps."""
    plain = nn.BatchNorm2d(width, **form).train(norm.training)
    with torch.no_grad():
        for name in TENSORS:
            if getattr(norm, name) is not None:
                for i in range(width):
                    getattr(plain, name)[i] = getattr(norm, name)[i]
        if form["track_running_stats"]:
            plain.num_batches_tracked.fill_(int(norm.num_batches_tracked))
    return plain


@pytest.mark.parametrize("training", [False, True])
def test_paths_are_norms_of_the_first_features(supernet, form, training):
    for path in paths_of(supernet):
        supernet.train(training)
        width = path["w"]
        norm = supernet.layers[0]
        expected = cut(norm, width, form)
        subnet = extract_subnet(supernet, path)
        assert type(subnet.layers[0]) is nn.BatchNorm2d
        assert subnet.layers[0].training == training
        state = subnet.layers[0].state_dict()
        assert list(state) == list(expected.state_dict())
        assert all(torch.equal(state[name], x) for name, x in expected.state_dict().items())
        x = images(6, width, 3, 3) * 2 + 1
        output = supernet(x)
        assert_close(output, expected(x))
        assert_close(output, subnet(x))


def test_a_step_updates_the_statistics_of_the_used_features_and_no_others(supernet, form):
    norm = supernet.layers[0].train()
    for step, width in enumerate((4, 2, 5, 2, 2, 4), start=1):
        set_path(supernet, {"w": width})
        before, expected = state_of(norm), cut(norm, width, form)
        x = images(6, width, 3, 3) * step + width
        assert_close(supernet(x), expected(x))
        for name in TENSORS[2:] if form["track_running_stats"] else ():
            now = getattr(norm, name)
            assert torch.equal(now[:width], getattr(expected, name))
            assert (now[:width] != before[name][:width]).all()
            assert torch.equal(now[width:], before[name][width:])
        if form["track_running_stats"]:
            assert int(norm.num_batches_tracked) == step


def test_evaluating_changes_no_statistics(supernet):
    for path in paths_of(supernet):
        before = state_of(supernet)
        supernet(images(6, path["w"], 3, 3))
        after = supernet.state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before)


def test_what_a_feature_has_seen_is_what_a_norm_of_its_own_would_have():
    supernet = build_supernet(lambda: MutableBatchNorm2d(choose("w", *WIDTHS), momentum=0.3))
    norm = supernet.layers[0].train()
    alone = [nn.BatchNorm2d(1, momentum=0.3) for _ in range(5)]
    for i, one in enumerate(alone):
        one.running_mean.copy_(norm.running_mean[i])
        one.running_var.copy_(norm.running_var[i])
    for step, width in enumerate((4, 2, 5, 2, 4)):
        set_path(supernet, {"w": width})
        x = images(6, 5, 3, 3) * (step + 1)
        supernet(x[:, :width])
        for i in range(width):
            alone[i](x[:, i : i + 1])
    assert_close(norm.running_mean, torch.cat([one.running_mean for one in alone]))
    assert_close(norm.running_var, torch.cat([one.running_var for one in alone]))


def test_gradients_stay_in_the_used_features():
    supernet = build_supernet(lambda: MutableBatchNorm2d(choose("w", *WIDTHS)))
    norm = supernet.layers[0].train()
    for path in paths_of(supernet):
        width = path["w"]
        supernet.zero_grad()
        expected = cut(norm, width, {"track_running_stats": True})
        for network in (supernet, expected):
            network(images(6, width, 3, 3)).square().sum().backward()
        for name in ("weight", "bias"):
            gradient = getattr(norm, name).grad
            assert (gradient[:width] != 0).all()
            assert_close(gradient[:width], getattr(expected, name).grad)
            assert gradient[width:].tolist() == [0] * (5 - width)


def test_eps_and_momentum_may_be_choices():
    supernet = build_supernet(
        lambda: MutableBatchNorm2d(
            choose("w", 2, 4), eps=choose("e", 1e-5, 0.5), momentum=choose("m", 0.1, 0.4)
        )
    )
    norm = supernet.layers[0].train()
    for path in paths_of(supernet):
        form = {"eps": path["e"], "momentum": path["m"], "track_running_stats": True}
        expected = cut(norm, path["w"], form)
        frozen = extract_subnet(supernet, path).layers[0]
        assert (frozen.eps, frozen.momentum) == (path["e"], path["m"])
        x = images(6, path["w"], 3, 3)
        assert_close(supernet(x), expected(x))
        assert torch.equal(norm.running_var[: path["w"]], expected.running_var)
