"""``python -m nni_spos.cli``."""

import sys

from nni_spos.cli import main

sys.exit(main())
