"""Numbers of a search that its charts show; plain Python, so that they can be checked by hand."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nni_spos.evolution import Candidate, State, pareto_front
from nni_spos.path import Choice, PathSpace


@dataclass(frozen=True)
class Generation:
    """Results of the candidates that were proposed together.

    Parameters
    ----------
    number
        From 0.
    num_so_far
        Candidates with a result up to and with this generation.
    best, mean
        Of the objective in this generation.
    best_so_far
        Of the objective up to and with this generation.
    """

    number: int
    num_so_far: int
    best: float
    mean: float
    best_so_far: float


@dataclass(frozen=True)
class Frequencies:
    """How often each choice of a label was proposed, generation by generation.

    Parameters
    ----------
    label
        Of the choice unit.
    choices
        Its choices.
    generations
        Numbers of the generations.
    shares
        Part of a generation's candidates with each choice, shape (choices, generations).
    """

    label: str
    choices: Sequence[Choice]
    generations: Sequence[int]
    shares: Sequence[Sequence[float]]


def finished(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Return the candidates with a result."""
    return [candidate for candidate in candidates if candidate.state is State.DONE]


def summarise_generations(candidates: Iterable[Candidate], objective: str) -> list[Generation]:
    """Return best and mean of every generation that has a result."""
    results: dict[int, list[float]] = {}
    for candidate in finished(candidates):
        results.setdefault(candidate.generation, []).append(candidate.metrics[objective])
    rows: list[Generation] = []
    for number in sorted(results):
        values = results[number]
        before = rows[-1] if rows else None
        rows.append(
            Generation(
                number=number,
                num_so_far=len(values) + (before.num_so_far if before else 0),
                best=max(values),
                mean=sum(values) / len(values),
                best_so_far=max([*values, *([before.best_so_far] if before else [])]),
            )
        )
    return rows


def front_points(
    candidates: Sequence[Candidate], objective: str, metric: str
) -> list[tuple[float, float]]:
    """Return cost and result of the candidates on the front, cheapest first, equal ones once."""
    front = pareto_front(candidates, objective, [metric])
    return list(dict.fromkeys((c.costs[metric], c.metrics[objective]) for c in front))


def best_of_parts(
    candidates: Iterable[Candidate], objective: str, metric: str, limit: float, count: int = 20
) -> list[tuple[float, float]]:
    """Return cost and result of the best candidate in each part of a limit, cheapest part first.

    Parameters
    ----------
    candidates
        Those that cost more than the limit are left out, and those without a result.
    objective, metric
        Names of the result and of the cost.
    limit
        Largest cost. It is divided into parts of the same length; each includes its upper end.
    count
        Number of parts; those without a candidate are left out.
    """
    parts: dict[int, list[Candidate]] = {}
    for candidate in finished(candidates):
        if candidate.costs[metric] <= limit:
            part = math.ceil(count * candidate.costs[metric] / limit)
            parts.setdefault(part, []).append(candidate)
    best = [
        max(parts[part], key=lambda c: (c.metrics[objective], -c.number)) for part in sorted(parts)
    ]
    return [(c.costs[metric], c.metrics[objective]) for c in best]


def count_choices(candidates: Sequence[Candidate], space: PathSpace) -> list[Frequencies]:
    """Return how often each choice was proposed in each generation, failed candidates included."""
    generations = sorted({candidate.generation for candidate in candidates})
    columns = {number: column for column, number in enumerate(generations)}
    sizes = [0] * len(generations)
    counts = [[[0] * len(generations) for _ in choices] for choices in space.values()]
    for candidate in candidates:
        column = columns[candidate.generation]
        sizes[column] += 1
        for label_counts, place in zip(counts, space.key(candidate.path), strict=True):
            label_counts[place][column] += 1
    return [
        Frequencies(
            label,
            choices,
            generations,
            [[n / size for n, size in zip(row, sizes, strict=True)] for row in label_counts],
        )
        for (label, choices), label_counts in zip(space.items(), counts, strict=True)
    ]
