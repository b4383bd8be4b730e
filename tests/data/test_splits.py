import numpy as np
import pytest

from nni_spos.data.splits import split_training_set
from nni_spos.errors import DataError

LABELS = np.repeat(np.arange(4), [400, 300, 200, 100])


def shares(positions):
    return np.bincount(LABELS[positions], minlength=4)


def test_splits_are_disjoint_stratified_and_complete():
    splits = split_training_set(LABELS)
    np.testing.assert_array_equal(shares(splits.validation), [40, 30, 20, 10])
    np.testing.assert_array_equal(shares(splits.train), [360, 270, 180, 90])
    both = np.concatenate([splits.train, splits.validation])
    np.testing.assert_array_equal(np.sort(both), np.arange(1000))


def test_num_train_takes_a_stratified_part_and_leaves_the_validation_images():
    everything = split_training_set(LABELS, num_validation=200)
    part = split_training_set(LABELS, num_train=100, num_validation=200)
    np.testing.assert_array_equal(part.validation, everything.validation)
    np.testing.assert_array_equal(shares(part.train), [40, 30, 20, 10])
    assert set(part.train) < set(everything.train)


def test_seed_decides():
    first, again = (split_training_set(LABELS, seed=3) for _ in range(2))
    other = split_training_set(LABELS, seed=4)
    np.testing.assert_array_equal(first.validation, again.validation)
    np.testing.assert_array_equal(first.train, again.train)
    assert set(first.validation) != set(other.validation)
    split_training_set(LABELS, seed=2**40)  # scikit-learn alone takes 32 bits


def test_default_is_a_tenth_and_at_most_the_papers_number():
    many = split_training_set(np.arange(600_000) % 2)
    assert len(many.validation) == 50_000
    few = split_training_set(np.arange(12) % 4)  # a tenth would not be one for each class
    assert len(few.validation) == 4


def test_exactly_all_images_is_allowed_and_one_more_is_not():
    assert len(split_training_set(LABELS, num_train=900).train) == 900
    with pytest.raises(DataError) as error:
        split_training_set(LABELS, num_train=901)
    assert str(error.value) == (
        "the training set has 1000 images; 100 for validation (num_validation) and 901 for "
        "training (num_train) are 1001."
    )
    with pytest.raises(DataError, match=r"1000 for .* one for each of 4 classes .* are 1004"):
        split_training_set(LABELS, num_validation=1000)


def test_a_split_needs_every_class():
    assert len(split_training_set(LABELS, num_validation=4).validation) == 4
    with pytest.raises(DataError, match=r"^num_validation = 3 is too small: the 4 classes"):
        split_training_set(LABELS, num_validation=3)
    with pytest.raises(DataError, match=r"^num_train = 3 is too small"):
        split_training_set(LABELS, num_train=3)
    with pytest.raises(DataError, match=r"^num_train = 898 of 900 images cannot be taken"):
        split_training_set(LABELS, num_train=898)
    with pytest.raises(DataError, match=r"^num_validation = 2 of 10 images cannot be taken"):
        split_training_set(np.array([0] * 9 + [1]))
