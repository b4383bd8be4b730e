"""Settings that code makes are checked as those of a recipe are."""

import pytest

from nni_spos.errors import ConstraintError, RecipeError
from nni_spos.recipe import (
    DataSettings,
    EvaluationSettings,
    RetrainSettings,
    SearchSettings,
    SupernetSettings,
    TrainSettings,
)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DataSettings("mnist"), "unknown data set 'mnist'"),
        (lambda: DataSettings("digits", num_train=0), "DataSettings.num_train: got 0; must be a"),
        (
            lambda: TrainSettings(epochs=0),
            "TrainSettings.epochs: got 0; must be a whole",
        ),
        (lambda: TrainSettings(epochs=1, momentum=2), "momentum: got 2; must be a number from 0"),
        (lambda: SupernetSettings(epochs=1, prior="normal"), "unknown prior 'normal'"),
        (lambda: RetrainSettings(epochs=1, initial_weights="x"), "must be one of random, supernet"),
        (lambda: EvaluationSettings(batch_size=-1), "EvaluationSettings.batch_size: got -1; must"),
        (lambda: SearchSettings(population_size="ten"), "population_size: got 'ten'; must be a"),
        (
            lambda: SearchSettings(constraints="flops <= 1"),
            "constraints: got 'flops <= 1'; must",
        ),
        (lambda: SearchSettings(constraints=["flops < "]), "flops < "),
    ],
)
def test_a_wrong_value_is_refused_where_it_is_given(make, message):
    with pytest.raises((RecipeError, ConstraintError)) as caught:
        make()
    assert message in str(caught.value)


def test_what_a_recipe_says_can_be_said_in_python():
    search = SearchSettings(constraints=["flops <= 330M"])
    assert [str(x) for x in search.constraints] == ["flops <= 330M"]
    assert SearchSettings(constraints=search.constraints) == search
    assert SearchSettings(constraints=list(search.constraints)) == search
    factors = TrainSettings(epochs=1, learning_rate_factors={"classifier": 0.1})
    assert factors.learning_rate_factors == (("classifier", 0.1),)
