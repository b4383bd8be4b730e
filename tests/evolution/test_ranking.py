import pytest
from hypothesis import given
from hypothesis import strategies as st

from nni_spos.evolution import Candidate, State
from nni_spos.evolution.ranking import Ranking


class Counted(float):
    """A score that counts how often it is compared or negated."""

    looks = 0

    def __neg__(self):
        Counted.looks += 1
        return -float(self)


def done(number, score):
    return Candidate({}, number, 0, {}, State.DONE, {"top1": score})


def numbers(candidates):
    return [candidate.number for candidate in candidates]


def test_a_ranking_by_hand():
    ranking = Ranking("top1")
    assert ranking.top(3) == []
    for number, score in [(4, 1.0), (2, 3.0), (0, 2.0), (1, 3.0), (3, -1.0)]:
        ranking.add(done(number, score))
    assert numbers(ranking.top(1)) == [1], "ties go to the earlier proposed, not the earlier told"
    assert numbers(ranking.top(9)) == [1, 2, 0, 4, 3]
    assert numbers(ranking.top(2)) == [1, 2]
    assert numbers(ranking.top(0)) == []
    assert len(ranking) == 5
    assert numbers(ranking.since(3)) == [1, 3]


@given(
    scores=st.lists(st.integers(0, 5), max_size=30).flatmap(st.permutations),
    counts=st.lists(st.integers(0, 12), min_size=30, max_size=30),
)
def test_it_is_that_of_sorting_everything(scores, counts):
    ranking, all_so_far = Ranking("top1"), []
    for number, (score, count) in enumerate(zip(scores, counts, strict=False)):
        candidate = done(number * 7 % 31, score)
        ranking.add(candidate)
        all_so_far.append(candidate)
        expected = sorted(all_so_far, key=lambda c: (-c.metrics["top1"], c.number))
        assert ranking.top(count) == expected[:count]


@pytest.mark.parametrize("kept", [1, 10])
def test_old_candidates_are_not_looked_at_again(kept):
    ranking = Ranking("top1")
    ranking.top(kept)
    looks = []
    for number in range(2000):
        Counted.looks = 0
        ranking.add(done(number, Counted(number * 617 % 2003)))
        ranking.top(kept)
        looks.append(Counted.looks)
    # The new one, and a bisection of those that are kept.
    assert max(looks) <= 1 + kept.bit_length()
    assert max(looks[1000:]) <= max(looks[:1000])
