"""Cost tables of a model space, from the shapes of its layers."""

from nni_spos.profilers.base import build_costs
from nni_spos.profilers.macs import count_macs, register_macs

__all__ = ["build_costs", "count_macs", "register_macs"]
