"""The small recipes of the other tests."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "experiment"))
