"""Floor 8: the command line `engines`. One module for each group of commands, loaded when it is called."""

from . import early as early
from .entry import main

__all__ = ["main"]
