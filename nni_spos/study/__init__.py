"""Experiments of many steps, described in YAML, e.g. those of the paper in ``examples/paper``.

The public names are loaded when they are first used: to list experiments takes no PyTorch, to run
one does.
"""

from __future__ import annotations

from nni_spos.process.lazy_names import lazy_names

_HOMES = {
    "Plan": "nni_spos.study.planning",
    "PlannedStep": "nni_spos.study.planning",
    "Scale": "nni_spos.study.description",
    "Step": "nni_spos.study.description",
    "Study": "nni_spos.study.description",
    "TableRequest": "nni_spos.study.description",
    "find_study": "nni_spos.study.finding",
    "list_studies": "nni_spos.study.finding",
    "load_study": "nni_spos.study.description",
    "make_plan": "nni_spos.study.planning",
    "run_plan": "nni_spos.study.running",
}

__all__ = list(_HOMES)

__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
