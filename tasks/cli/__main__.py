"""``python -m tasks.cli`` is ``fedrisk``."""

import sys

from tasks.cli import main

sys.exit(main())
