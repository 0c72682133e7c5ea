"""Floor 8: what users need to test their own engines and policies: whole systems, real or in process, and behaviour checks."""

from .engine_checks import check_engine
from .policy_checks import check_policy
from .stack import Stack, in_process, local_stack

__all__ = ["Stack", "check_engine", "check_policy", "in_process", "local_stack"]
