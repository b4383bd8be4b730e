"""Experiments of many steps, described in YAML, e.g. those of the paper in ``examples/paper``."""

from nni_spos.study.description import Scale, Step, Study, TableRequest, load_study
from nni_spos.study.finding import find_study, list_studies
from nni_spos.study.planning import Plan, PlannedStep, make_plan
from nni_spos.study.running import run_plan

__all__ = [
    "Plan",
    "PlannedStep",
    "Scale",
    "Step",
    "Study",
    "TableRequest",
    "find_study",
    "list_studies",
    "load_study",
    "make_plan",
    "run_plan",
]
