"""`python -m agent_engines.config` writes the reference page to standard output."""

import sys

from .reference import reference

sys.stdout.write(reference())
