"""What is known about a search besides its outcomes: which recipe it is of, what it cost so far.

It is in a file beside the journal. A search goes on without it, and is the same one without it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path as FilePath

from nni_spos.errors import ExperimentError
from nni_spos.files.atomic import read_json, write_json
from nni_spos.process.stage_cost import StageCost, measure_since, read_stage_cost, reset_peak_memory
from nni_spos.recipe.output import SearchFolder
from nni_spos.recipe.recipe import Recipe
from nni_spos.scoring.notes import NOTES, add_notes


@dataclass(frozen=True)
class RunRecord:
    """What the file says.

    Parameters
    ----------
    recipe
        Where the recipe was; None if it is not known.
    output
        Name of the recipe's output folder, which is that of the search for people.
    cost
        Of the evaluation of all candidates so far; None if it is not known.
    notes
        What trials warned of, see `nni_spos.scoring.notes`.
    """

    recipe: FilePath | None = None
    output: str | None = None
    cost: StageCost | None = None
    notes: tuple[str, ...] = ()


def read_run_record(folder: SearchFolder) -> RunRecord:
    """Read the record of a search; what is missing or damaged in it is not known."""
    try:
        content = read_json(folder.record, ExperimentError)
    except ExperimentError:
        return RunRecord()
    if not isinstance(content, dict):
        return RunRecord()
    recipe, output = content.get("recipe"), content.get("output")
    notes: list[str] = []
    add_notes(notes, content.get(NOTES))
    return RunRecord(
        FilePath(recipe) if isinstance(recipe, str) else None,
        output if isinstance(output, str) else None,
        read_stage_cost(content.get("cost")),
        tuple(notes),
    )


class RunRecorder:
    """Keep the record of a search up to date while it runs.

    A search whose first part was not recorded has no cost: half of it would pass for all.

    Parameters
    ----------
    folder
        Of the search.
    recipe
        Of the search.
    num_recorded
        Outcomes that the journal has already.
    """

    def __init__(self, folder: SearchFolder, recipe: Recipe, num_recorded: int):
        self._file = folder.record
        self._recipe = recipe
        none_yet = None if num_recorded else StageCost(0.0, None, "")
        before = read_run_record(folder)
        self._cost = before.cost or none_yet
        self._notes = list(before.notes)
        self._write()

    def add(self, cost: StageCost) -> None:
        """Add the cost of some candidates."""
        if self._cost is not None:
            self._cost += cost
            self._write()

    def note(self, notes: object) -> None:
        """Keep the notes that a trial reported, if it did."""
        if add_notes(self._notes, notes):
            self._write()

    @contextlib.contextmanager
    def measuring(self) -> Iterator[None]:
        """Add what the block costs this process, also if it is interrupted."""
        begin = time.monotonic()
        reset_peak_memory()
        try:
            yield
        finally:
            self.add(measure_since(begin))

    def _write(self) -> None:
        cost = None if self._cost is None else self._cost.to_json()
        recipe = self._recipe
        content = {"recipe": str(recipe.file), "output": recipe.output.name, "cost": cost}
        write_json(self._file, {**content, **({NOTES: self._notes} if self._notes else {})})
