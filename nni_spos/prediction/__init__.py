"""What paths will reach, learned from a few that were trained or scored: NumPy and SciPy alone."""

from nni_spos.prediction.design import d_optimal
from nni_spos.prediction.inputs import PathInputs
from nni_spos.prediction.model import PathModel

__all__ = ["PathInputs", "PathModel", "d_optimal"]
