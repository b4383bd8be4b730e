"""A first phase of training that begins with the widest channel numbers."""

from __future__ import annotations

from collections.abc import Sequence

from nni_spos.errors import PathError, RecipeError, nearest
from nni_spos.path import Choice, PathSpace
from nni_spos.priors.base import Prior
from nni_spos.priors.widening import WideningPrior


class WarmUpPrior(WideningPrior):
    """Begin with the widest channel numbers, admit the others one by one, then follow a prior.

    Supernets that search blocks and channel numbers together are reported not to converge when
    all widths are trained from the first step on; the smallest widths hurt most. So in step t of
    the warm-up a label of n choices may take only the ``1 + floor(t * n / steps)`` widest ones:
    at first the widest alone, at last all.

    Parameters
    ----------
    prior
        Where paths come from after the warm-up, the same ones that it gives for these steps by
        itself; its seed is this prior's too.
    labels
        Labels that are warmed up; their choices are numbers, such as channel numbers.
    steps
        Length of the warm-up in steps; 0 for none.

    Raises
    ------
    PathError
        A label is not in the space, or one of its choices is not a number.
    RecipeError
        `steps` is not a whole number from 0 on, or there are steps but no labels.

    Notes
    -----
    During the warm-up all paths that are admitted are alike, whatever `prior` prefers. **No limit
    on a cost holds until it is over**: the widest paths are the dearest. `draw`, which knows of no
    step, draws from `prior`.

    Examples
    --------
    >>> from nni_spos.priors.uniform import UniformPrior
    >>> space = PathSpace({"layer": ["k3", "k5"], "width": [16, 32, 64, 128]})
    >>> prior = WarmUpPrior(UniformPrior(space, seed=1), ["width"], steps=1000)
    >>> sorted({prior.path(step)["width"] for step in range(250)})
    [128]
    >>> sorted({prior.path(step)["width"] for step in range(500, 750)})
    [32, 64, 128]
    >>> prior.path(1000) == prior.prior.path(1000)
    True

    References
    ----------
    The reports, and a warm-up by epochs: https://github.com/CanyonWind/Single-Path-One-Shot-NAS-MXNet
    """

    def __init__(self, prior: Prior, labels: Sequence[str], steps: int):
        if not isinstance(steps, int) or isinstance(steps, bool) or steps < 0:
            raise RecipeError(
                f"channel_warmup_steps must be a whole number from 0 on, got {steps!r}."
            )
        if steps and not labels:
            raise RecipeError(
                f"a warm-up of {steps} steps needs labels of channel numbers, and the space has "
                "none. Leave channel_warmup_steps out, or take a space that searches channels."
            )
        widest_first = {label: _widest_first(prior.space, label) for label in labels}
        super().__init__(prior, widest_first, steps)


def _widest_first(space: PathSpace, label: str) -> tuple[Choice, ...]:
    """Return the choices of a label in falling order. Raises PathError."""
    if label not in space:
        raise PathError(
            f"warm-up: label '{label}' is not in the search space"
            f"{nearest(label, space) or '.'} Labels: {', '.join(space)}."
        )
    choices = space[label]
    for choice in choices:
        if isinstance(choice, bool | str):
            raise PathError(
                f"warm-up: label '{label}' has the choice {choice!r}, which is not a number. Only "
                "labels of channel numbers can be warmed up."
            )
    return tuple(sorted(choices, reverse=True))
