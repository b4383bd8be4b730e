import numpy as np
import pytest

from nni_spos.data.splits import check_groups_apart, split_training_set, strata_of
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
    with pytest.raises(
        DataError, match=r"^num_validation = 2: class 1 has a single image \(image 9"
    ):
        split_training_set(np.array([0] * 9 + [1]))


def test_test_images_are_the_same_for_every_seed():
    one, other = (split_training_set(LABELS, num_test=100, seed=seed) for seed in (0, 1))
    np.testing.assert_array_equal(one.test, other.test)
    np.testing.assert_array_equal(shares(one.test), [40, 30, 20, 10])
    assert set(one.validation) != set(other.validation)
    for found in (one, other):
        parts = np.concatenate([found.train, found.validation, found.test])
        np.testing.assert_array_equal(np.sort(parts), np.arange(1000))
    assert split_training_set(LABELS).test is None
    with pytest.raises(DataError, match=r"100 for validation \(num_validation\), 900 for the test"):
        split_training_set(LABELS, num_test=900)
    with pytest.raises(DataError, match="num_test = 3 is too small: the 4 classes"):
        split_training_set(LABELS, num_test=3)


def test_a_validation_set_leaves_the_training_set_whole():
    own = np.arange(40) % 4
    found = split_training_set(LABELS, validation=own)
    assert (len(found.train), len(found.validation)) == (1000, 40)
    part = split_training_set(LABELS, num_train=500, num_validation=8, validation=own)
    assert (len(part.train), len(part.validation)) == (500, 8)
    np.testing.assert_array_equal(np.bincount(own[part.validation]), [2, 2, 2, 2])
    with pytest.raises(DataError, match=r"num_validation = 41 is too much: the validation set"):
        split_training_set(LABELS, num_validation=41, validation=own)


@pytest.mark.parametrize(("number", "groups"), [(100, 100), (300, 100), (700, 100), (90, 7)])
def test_groups_stay_together_and_classes_keep_their_shares(number, groups):
    names = np.random.default_rng(0).permutation(1000) % groups
    found = split_training_set(LABELS, num_validation=number, groups=names, num_test=100)
    parts = (found.train, found.validation, found.test)
    owned = [set(names[part]) for part in parts]
    assert set.union(*owned) == set(range(groups))
    assert sum(map(len, owned)) == groups
    assert sum(map(len, parts)) == 1000
    if groups == 100:
        assert abs(len(found.validation) - number) <= 60
        np.testing.assert_allclose(
            shares(found.validation) / number, [0.4, 0.3, 0.2, 0.1], atol=0.1
        )


def test_groups_that_cannot_be_divided_are_refused():
    with pytest.raises(DataError, match=r"num_validation = 100: all 1000 images are of one group"):
        split_training_set(LABELS, groups=np.zeros(1000))
    with pytest.raises(DataError, match=r"no image of class 0 is left when whole groups are held"):
        split_training_set(np.repeat([0, 1], 10), None, 10, groups=np.repeat([1, 0], 10))
    check_groups_apart(np.array(["a"]), np.array(["b"]), ("training", "test"))
    check_groups_apart(None, np.array(["b"]), ("training", "test"))
    with pytest.raises(DataError, match="the group 'a' is in the training set and in the test set"):
        check_groups_apart(np.array(["a"]), np.array(["b", "a"]), ("training", "test"))


def test_strata_of_targets():
    np.testing.assert_array_equal(strata_of("class", LABELS), LABELS)
    assert set(strata_of("values", np.zeros((50, 2)))) == {0}
    labels = np.array([[0, 1]] * 500 + [[1, 1]] * 490 + [[1, 0]] * 6 + [[0, 0]] * 4)
    strata = strata_of("labels", labels, 100)
    assert [len(set(strata[part])) for part in (slice(500), slice(500, 990), slice(990, 1000))] == [
        1,
        1,
        1,
    ]
    assert len(set(strata)) == 3
    assert len(set(strata_of("labels", labels[:995], 100))) == 2, "five are too few for a tenth"
    split_training_set(strata_of("labels", labels[:991], 100), num_validation=100)
