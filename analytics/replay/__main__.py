"""`python -m analytics.replay`: the replay from the command line."""

from __future__ import annotations

import sys

from analytics.replay.cli import main

sys.exit(main(sys.argv[1:]))
