"""Floor 8: the command line `engines`. One module for each group of commands, loaded when it is called."""

from .entry import main

__all__ = ["main"]
