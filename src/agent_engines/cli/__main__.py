"""`python -m agent_engines.cli`, the same as `engines`."""

import sys

from .entry import main

sys.exit(main())
