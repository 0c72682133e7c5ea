"""Fault runs on real servers: a load that keeps its history, a nemesis that counts its harm, a verdict from the ledger.

`engines chaos` is made of these, and so are the fault runs of our own suite.
"""

from .judgement import Verdict, verdict
from .load import Load, during, some_flaky, work
from .nemesis import Nemesis, Running

__all__ = ["Load", "Nemesis", "Running", "Verdict", "during", "some_flaky", "verdict", "work"]
