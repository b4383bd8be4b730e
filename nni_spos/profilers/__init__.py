"""Cost tables of a model space, from what PyTorch computes in it."""

from nni_spos.profilers.base import build_costs
from nni_spos.profilers.macs import register_macs
from nni_spos.profilers.networks import count_macs

__all__ = ["build_costs", "count_macs", "register_macs"]
