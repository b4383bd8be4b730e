"""The processes that train together: how many, which one this is, and how they begin and end.

Light, so that a process is there soon: what a training needs is imported by its task.
"""

from nni_spos.ranks.launch import check_training, leading, run_processes
from nni_spos.ranks.places import count_devices, is_first, launched

__all__ = ["check_training", "count_devices", "is_first", "launched", "leading", "run_processes"]
