"""Spaces that ask for values, which the meta device has not, and spaces that do not run."""

import numpy as np
import pytest
import torch
from small_networks import IMAGE, Small, assert_right, features, small
from torch import nn

from nni_spos.errors import CostError
from nni_spos.profilers import build_costs


def refusal(space, image=IMAGE):
    with pytest.raises(CostError) as error:
        build_costs(space(), image)
    assert "\n" not in str(error.value)
    return str(error.value)


def shifted(space, x):
    return features(space, x - space.mean)


def with_zeros(space, x):
    x = features(space, x)
    return x + torch.zeros(x.shape)


def from_list(space, x):
    return features(space, x - space.means[0])


def with_assertion(space, x):
    assert not torch.isnan(x).any()
    return features(space, x)


def with_condition_on_images(space, x):
    if x.min() < 0:
        raise ValueError("images must be in [0, 1]")
    return features(space, x)


def divided(space, x):
    x = features(space, x)
    return x / x.max() if x.max() > 1 else x


def with_numpy(space, x):
    return features(space, x) * float(np.abs(x.cpu().numpy()).max())


def in_place(space, x):
    return features(space, x.sub_(0.5).div_(x.std().item()))


def chosen_pixels(space, x):
    return features(space, x) * x[x > 0].sum()


def random_noise(space, x):
    return features(space, x + torch.randn(x.shape))


SPACES = {
    "plain tensor": small(shifted, mean=lambda: torch.tensor(0.3)),
    "computed tensor": small(shifted, mean=lambda: nn.Parameter(torch.ones(1)) * 2),
    "tensor in a list": small(from_list, means=lambda: [torch.ones(1)]),
    "parameter in a list": small(from_list, means=lambda: [nn.Parameter(torch.ones(1))]),
} | {
    body.__name__: small(body)
    for body in (
        with_zeros, with_assertion, with_condition_on_images, divided, with_numpy, in_place,
        chosen_pixels, random_noise,
    )
}  # fmt: skip


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_values_are_there(space):
    made = space()
    state = torch.get_rng_state()
    assert_right(build_costs(made, IMAGE), space)
    # Nobody else's random numbers are used: those of the checks above come from the same place.
    torch.set_rng_state(state)
    build_costs(made, IMAGE)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_weights_and_statistics_stay():
    made = small(divided)().train()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    build_costs(made, IMAGE)
    assert made.training
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())


def if_large(space, x):
    return space.more(features(space, x)) if x.max() > 5 else features(space, x)


def if_dark(space, x):
    return space.more(features(space, x)) if x.mean() < 0 else features(space, x)


def if_empty(space, x):
    return features(space, x) if x.abs().sum() > 0 else space.stem(x)


def product_if_large(space, x):
    x = features(space, x)
    return x @ x if x.max() > 5 else x


@pytest.mark.parametrize("body", [if_large, if_dark, if_empty, product_if_large])
def test_layers_that_depend_on_the_image_are_refused(body):
    message = refusal(small(body, more=lambda: nn.Conv2d(4, 4, 1)))
    assert message == (
        "the space calls other layers, or layers on other sizes, for images of other values, so "
        "that its costs cannot be counted. Compute the same for every image."
    )


def never(space, x):
    raise AssertionError("not today")


def missing(space, x):
    return space.nothing(x)


def not_contiguous(space, x):
    return features(space, x.transpose(2, 3).view(1, 1, 4, 16))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (never, "AssertionError: not today"),
        (missing, "AttributeError: 'Space' object has no attribute 'nothing'"),
        (not_contiguous, "RuntimeError: view size is not compatible with "),
    ],
)
def test_the_reason_is_given(body, reason):
    message = refusal(small(body))
    assert message.startswith(f"with images of shape {IMAGE} the space does not run: {reason}")


@pytest.mark.parametrize("image", [(3, 8, 8), (8, 8), (1,)])
def test_images_that_do_not_fit(image):
    assert refusal(small(), image).startswith(f"images of shape {image} do not fit the space (")
    assert refusal(small(divided), image).startswith(f"images of shape {image} do not fit")


def test_a_norm_of_other_channels_where_values_are_needed():
    message = refusal(small(lambda space, x: space.norm(divided(space, x)), norm=norm))
    assert "a BatchNorm of 5 channels got 4" in message


def norm():
    return nn.BatchNorm2d(5)


class Biased(Small):
    """Calls a layer because of what its norm adds."""

    def build(self):
        self.more = nn.Conv2d(4, 4, 1)
        with torch.no_grad():
            self.stem[1].bias.fill_(3)
            self.stem[1].weight.zero_()

    def body(self, x):
        x = self.stem(x)
        return self.more(self.unit(x)) if x.mean() > 2 else self.unit(x)


def test_norms_compute_where_values_decide():
    assert_right(build_costs(Biased(), IMAGE), Biased)
