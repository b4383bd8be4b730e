"""Ask and tell: what every search has in common."""

from __future__ import annotations

import enum
import itertools
from abc import ABC, abstractmethod
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from nni_spos.constraint import Constraint
from nni_spos.cost_table import Costs
from nni_spos.errors import SearchError
from nni_spos.evolution.candidate import Candidate, State
from nni_spos.evolution.feasible import FeasibleSampler
from nni_spos.evolution.ranking import Ranking
from nni_spos.evolution.reasons import MOST_REASONS, distinct_reasons
from nni_spos.path import Path, PathKey, PathSpace
from nni_spos.recipe.named_components import NoSettings
from nni_spos.recipe.rules import parse_constraints
from nni_spos.values import as_number, is_finite, not_finite, shown


class Signal(enum.Enum):
    """What `Search.ask` returns when it has no candidate."""

    WAIT = "wait"
    """Results are missing: ask again after the next `tell`."""
    FINISHED = "finished"
    """Every candidate was asked for and told."""


class Search(ABC):
    """A search in generations over the feasible paths of a space.

    A generation is proposed as a whole when the one before it is complete, from a generator
    seeded by (seed, generation). So the candidates depend on the seed and the results only,
    never on the order in which results arrive. No path is asked for twice.

    Parameters
    ----------
    space
        Labels and their choices.
    costs
        Cost tables by metric; every candidate is priced by all of them.
    constraints
        Limits that every candidate keeps, or their texts: ``"flops <= 330M"``.
    population_size
        Candidates of a generation.
    num_generations
        Number of generations, the first (random) one included.
    objective
        Name of the result that is to be as high as possible.
    seed
        Seed of the search's own generators.

    Attributes
    ----------
    Settings : type
        What a subclass takes from a recipe beside these: a frozen dataclass whose fields
        `nni_spos.recipe.settings.setting` makes, and which the constructor takes by their names.
        Its method ``beside(section)``, if it has one, is called with the recipe's section
        ``search``; it returns the settings as they are with these, or raises RecipeError. A field
        ``cost_objectives`` holds the metrics that are to be as low as possible.
    title : str
        What people call it; "" for its name in the recipe.

    Raises
    ------
    ConstraintError, InfeasibleError
        Before anything is asked: the constraints cannot be met.

    Examples
    --------
    A module ``my_search.py`` beside a recipe that has ``search: {algorithm: my_search:Local}``:

    >>> from nni_spos.evolution.mutation import mutate
    >>> class Local(Search):
    ...     def propose(self, generator):
    ...         yield from itertools.islice(self.sampler.stream(generator), 20)
    ...         for candidate in self.top(1):
    ...             best = self.space.key(candidate.path)
    ...             for _ in range(1000):
    ...                 key = mutate(best, self.space.num_choices, 0.1, generator)
    ...                 if self.is_new(key):
    ...                     yield key
    """

    Settings: ClassVar[type[Any]] = NoSettings
    title: ClassVar[str] = ""

    def __init__(
        self,
        space: PathSpace,
        costs: Costs,
        *,
        constraints: Sequence[Constraint | str] = (),
        population_size: int = 50,
        num_generations: int = 20,
        objective: str = "top1",
        seed: int = 0,
    ):
        self.space = space
        self.costs = dict(costs)
        self.population_size = population_size
        self.num_generations = num_generations
        self.objective = objective
        self.seed = seed
        self.sampler = FeasibleSampler(space, costs, parse_constraints(constraints))
        self.generation = -1
        self._candidates: dict[PathKey, Candidate] = {}
        self._known: dict[PathKey, Mapping[str, Any] | str] = {}
        # First in, first out, and a look-up of any.
        self._unasked: OrderedDict[PathKey, None] = OrderedDict()
        self._enqueued: deque[PathKey] = deque()
        self._ranking = Ranking(objective)
        self._num_pending = 0
        self._finished = False

    def __repr__(self) -> str:
        ended = len(self._candidates) - self._num_pending
        text = f"{type(self).__name__}: {ended} of {self.num_candidates} candidates"
        for best in self.top(1):
            text += f", best {self.objective} {best.metrics[self.objective]:.6g}"
        return f"<{text}>"

    @abstractmethod
    def propose(self, generator: np.random.Generator) -> Iterable[PathKey]:
        """Propose the paths of the next generation, best first; too many are cut off.

        Called when every candidate so far is done or failed. The paths are taken one at a time,
        so `self.is_new`, which says what may be proposed, knows those taken before.
        """

    def ask(self) -> Path | Signal:
        """Return the next path to evaluate, or why there is none now.

        Raises
        ------
        SearchError
            Every candidate of the first generation failed: nothing to go on with.
        """
        while not self._unasked:
            if self._num_pending:
                return Signal.WAIT
            if not self._start_generation():
                return Signal.FINISHED
        return dict(self._candidates[self._unasked.popitem(last=False)[0]].path)

    def tell(self, path: Mapping[str, Any], metrics: Mapping[str, Any]) -> Candidate:
        """Take the results of a path that was asked for.

        A result for a candidate told as failed before (it came late) is taken too; a second
        result for a finished one is ignored.

        Raises
        ------
        SearchError
            The path was never asked for, or the objective is missing or not a finite number.
        """
        candidate = self._asked(path)
        metrics = {name: as_number(value) for name, value in metrics.items()}
        value = metrics.get(self.objective)
        if not is_finite(value):
            raise SearchError(
                f"the result's '{self.objective}' must be a finite number, got {value!r}."
            )
        if candidate.state is not State.DONE:
            self._num_pending -= candidate.state is State.PENDING
            candidate.state = State.DONE
            # Others are left out where they are not finite: JSON has no such numbers.
            candidate.metrics = {k: v for k, v in metrics.items() if not not_finite({k: v})}
            candidate.reason = ""
            self._ranking.add(candidate)
        return candidate

    def tell_failure(self, path: Mapping[str, Any], reason: str) -> Candidate:
        """Exclude a path whose evaluation failed; a finished candidate stays as it is."""
        candidate = self._asked(path)
        if candidate.state is State.PENDING:
            self._num_pending -= 1
            candidate.state = State.FAILED
            candidate.reason = reason
        return candidate

    def remember(self, path: Mapping[str, Any], outcome: Mapping[str, Any] | str) -> None:
        """Give the outcome of a path ahead: metrics, or the reason of a failure.

        A remembered path is told as soon as it is proposed instead of being asked for; so a
        search resumed with its old results goes on where it stopped. Call before `ask`.
        """
        self._known[self.space.key(path)] = outcome

    def enqueue(self, paths: Iterable[Mapping[str, Any]]) -> None:
        """Let paths be the first that are proposed, in their order, before those of the search.

        They count as candidates of the next generation, and of later ones if there are more. Those
        that break a constraint, or were proposed before, are left out. Call before `ask`. Raises
        PathError.
        """
        self._enqueued.extend([self.space.key(path) for path in paths])

    def find(self, path: Mapping[str, Any]) -> Candidate | None:
        """Return the candidate of a path that was asked for, or None. Raises PathError."""
        key = self.space.key(path)
        return None if key in self._unasked else self._candidates.get(key)

    def is_new(self, key: PathKey) -> bool:
        """Whether a path, given as positions, is feasible and was never proposed."""
        return key not in self._candidates and self.sampler.is_feasible(key)

    def top(self, count: int) -> list[Candidate]:
        """Return the best finished candidates, best first; ties go to the earlier proposed."""
        return self._ranking.top(count)

    @property
    def best(self) -> Candidate:
        """The best finished candidate. Raises SearchError if there is none."""
        if best := self.top(1):
            return best[0]
        raise SearchError("no candidate of the search is finished yet.")

    @property
    def candidates(self) -> list[Candidate]:
        """Every candidate so far, in the order of proposal."""
        return list(self._candidates.values())

    @property
    def num_candidates(self) -> int:
        """Number of candidates of the whole search, if the space has as many."""
        return self.population_size * self.num_generations

    def _asked(self, path: Mapping[str, Any]) -> Candidate:
        candidate = self.find(path)
        if candidate is None:
            raise SearchError(f"a result came for a path that was never asked for: {dict(path)}.")
        return candidate

    def _start_generation(self) -> bool:
        if self._candidates and not self._ranking:
            reasons = distinct_reasons(self.candidates)
            raise SearchError(
                f"all {len(self._candidates)} candidates failed, the search cannot go on. "
                f"Reasons: {'; '.join(reasons[:MOST_REASONS])}."
            )
        if self._finished or self.generation + 1 >= self.num_generations:
            self._finished = True
            return False
        self.generation += 1
        generator = np.random.default_rng([self.seed, self.generation])
        for key in itertools.islice(self._proposals(generator), self.population_size):
            self._check_proposal(key)
            self._add(key)
        self._finished = not self._unasked
        self._tell_remembered()
        return not self._finished

    def _proposals(self, generator: np.random.Generator) -> Iterator[PathKey]:
        """Yield what was enqueued, then what the search proposes beside that."""
        while self._enqueued:
            if self.is_new(key := self._enqueued.popleft()):
                yield key
        yield from self.propose(generator)  # which begins when `is_new` knows those before

    def _check_proposal(self, key: PathKey) -> None:
        """Refuse what may not be proposed. Raises SearchError."""
        sizes = self.space.num_choices
        if not (
            isinstance(key, tuple)
            and len(key) == len(sizes)
            and all(type(x) is int and 0 <= x < size for x, size in zip(key, sizes, strict=True))
        ):
            raise SearchError(
                f"search {type(self).__name__}: propose must yield tuples of {len(sizes)} whole "
                f"numbers, the position of every label's choice from 0 on, got {shown(key)}."
            )
        if not self.is_new(key):
            raise SearchError(
                f"search {type(self).__name__}: proposed a path twice, or one that breaks a "
                "constraint. Ask self.is_new(key) before."
            )

    def _add(self, key: PathKey) -> None:
        path = self.space.decode([key])[0]
        costs = {metric: table.price(path) for metric, table in self.costs.items()}
        self._candidates[key] = Candidate(path, len(self._candidates), self.generation, costs)
        self._unasked[key] = None
        self._num_pending += 1

    def _tell_remembered(self) -> None:
        remembered = [key for key in self._unasked if key in self._known]
        for key in remembered:
            del self._unasked[key]
            path, outcome = self._candidates[key].path, self._known.pop(key)
            if isinstance(outcome, str):
                self.tell_failure(path, outcome)
            else:
                self.tell(path, outcome)
