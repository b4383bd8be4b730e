"""What a search was told, kept on disk as it happens.

One JSON object a line: first what the journal belongs to, then every outcome. A search is a
function of its seed and its results, so the outcomes are its whole state: a new search that
remembers them goes on where the old one stopped. Appending costs the same for the first and the
hundred-thousandth outcome, which rewriting one state file would not.

Every line has its hash. A damaged one is left out, and its candidate is evaluated again; all
others count. Lines without a hash are those of a journal that was begun before there were any:
then a line that is not an outcome is refused.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any

from nni_spos.errors import FileWarning, SearchError
from nni_spos.evolution.candidate import Candidate, State
from nni_spos.files.atomic import append_durably, drop_end, write_atomically
from nni_spos.files.sealing import open_record, seal_record
from nni_spos.path import CHOICE_TYPES
from nni_spos.values import changes, is_finite, shown

VERSION = 1


class Journal:
    """Outcomes of one search in a file that survives a crash at any moment.

    Parameters
    ----------
    file
        Made if it does not exist, else read; a last line cut short by a crash is dropped.
    settings
        What the outcomes depend on (space, seed, checkpoint, ...), as JSON values. A journal
        with other settings is refused.

    Attributes
    ----------
    settings : dict
        Those that the file has.
    outcomes : list of (path, outcome)
        What was recorded before, in the order of proposal: metrics, or the reason of a failure as
        text.

    Raises
    ------
    SearchError
        The file belongs to a search with other settings, or is not a journal.
    """

    def __init__(self, file: str | os.PathLike[str], settings: Mapping[str, Any]):
        self.file = FilePath(file)
        self.outcomes: list[tuple[dict[str, Any], Mapping[str, Any] | str]] = []
        self.settings: dict[str, Any] = json.loads(json.dumps(settings))
        if self.file.exists():
            self._read()
        else:
            self._begin()

    def complete(self, settings: Mapping[str, Any]) -> None:
        """Record settings that were not known when the journal was begun, before any outcome."""
        new = {key: settings[key] for key in settings if key not in self.settings}
        if new:
            append_durably(self.file, seal_record({"settings": new}))
            self.settings |= json.loads(json.dumps(new))

    def append(self, candidate: Candidate) -> None:
        """Record a finished or failed candidate; on return it is on the disk."""
        outcome: dict[str, Any] = {
            "number": candidate.number,
            "generation": candidate.generation,
            "path": candidate.path,
            "costs": candidate.costs,
        }
        if candidate.state is State.DONE:
            outcome["metrics"] = candidate.metrics
        else:
            outcome["failed"] = candidate.reason
        append_durably(self.file, seal_record(outcome))

    def _begin(self) -> None:
        header = {"journal_version": VERSION, "settings": self.settings}
        write_atomically(self.file, lambda stream: stream.write(seal_record(header)))

    def _read(self) -> None:
        settings, candidates, rest = _parse(self.file)
        found = changes(settings, self.settings)
        if found and not candidates:  # nothing depends on them yet
            self._begin()
            return
        if found:
            raise SearchError(
                f"{self.file}: belongs to a search with other settings ({found}). Restore them to "
                "resume. To start anew, move the file away; 'nni-spos search --overwrite' does."
            )
        # As they were proposed: so a search that is told of them proposes them in the same order.
        candidates = sorted(candidates, key=lambda candidate: candidate.number)
        self.outcomes = [
            (c.path, c.metrics if c.state is State.DONE else c.reason) for c in candidates
        ]
        if rest:
            text = f"{self.file}: the last line was cut short; dropped."
            warnings.warn(text, FileWarning, stacklevel=3)
            drop_end(self.file, len(rest))
        self.settings = settings


def read_journal(file: str | os.PathLike[str]) -> tuple[dict[str, Any], list[Candidate]]:
    """Read a journal without touching it, also while a search is writing it.

    Returns
    -------
    The settings of the search, and every finished or failed candidate in the order of proposal;
    one that was recorded twice (a late result) counts with its last record.

    Raises
    ------
    SearchError
        The file is missing or is not a journal.
    """
    settings, candidates, _ = _parse(FilePath(file))
    latest = {candidate.number: candidate for candidate in candidates}
    return settings, [latest[number] for number in sorted(latest)]


def _parse(file: FilePath) -> tuple[dict[str, Any], list[Candidate], bytes]:
    """Return settings, candidates as recorded, and what follows the last complete line."""
    try:
        first, *lines, rest = file.read_bytes().split(b"\n")
        found, has_hashes = open_record(first)
        settings, version = found["settings"], found["journal_version"]
        if not isinstance(settings, dict):
            raise TypeError("the settings are damaged")
        if version != VERSION:
            lines = []
        read = _undamaged if has_hashes else _plain
        candidates = read(file, lines, settings)
    except OSError as problem:
        raise SearchError(f"{file}: cannot be read ({problem.strerror}).") from None
    except (ValueError, KeyError, TypeError, RecursionError) as problem:
        raise SearchError(
            f"{file}: is not a search journal ({problem}). Move it away to start anew."
        ) from None
    if version != VERSION:
        raise SearchError(f"{file}: has version {shown(version)}; this is version {VERSION}.")
    return settings, candidates, rest


def _plain(file: FilePath, lines: Sequence[bytes], settings: dict[str, Any]) -> list[Candidate]:
    """Read the outcomes of a journal without hashes, all or none."""
    return [_candidate(open_record(line)[0]) for line in lines]


def _undamaged(file: FilePath, lines: Sequence[bytes], settings: dict[str, Any]) -> list[Candidate]:
    """Read outcomes that have hashes, and settings that came later; warn of damaged ones."""
    candidates, damaged = [], []
    for number, line in enumerate(lines, start=2):
        try:
            outcome, has_hash = open_record(line)
            if not has_hash:
                raise ValueError("it has no hash")
            if outcome.keys() == {"settings"}:
                settings.update(outcome["settings"])
                continue
            candidates.append(_candidate(outcome))
        except (ValueError, KeyError, TypeError, RecursionError):
            damaged.append(str(number))
    if damaged:
        text = f"{file}: damaged and left out: line {', '.join(damaged[:10])}."
        warnings.warn(text, FileWarning, stacklevel=2)
    return candidates


def _candidate(outcome: Mapping[str, Any]) -> Candidate:
    candidate = Candidate(
        outcome["path"], outcome["number"], outcome["generation"], outcome["costs"]
    )
    if "metrics" in outcome:
        candidate.state, candidate.metrics = State.DONE, outcome["metrics"]
    else:
        candidate.state, candidate.reason = State.FAILED, outcome["failed"]
    mappings = (candidate.path, candidate.costs, candidate.metrics)
    if (
        not all(isinstance(mapping, dict) for mapping in mappings)
        or not all(type(choice) in CHOICE_TYPES for choice in candidate.path.values())
        or not all(map(is_finite, candidate.costs.values()))
        or not all(type(x) is int and x >= 0 for x in (candidate.number, candidate.generation))
        or not isinstance(candidate.reason, str)
    ):
        raise TypeError("a record is damaged")
    return candidate
