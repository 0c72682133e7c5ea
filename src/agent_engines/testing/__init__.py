"""Floor 8: what users need to test their own engines and policies: whole systems, real or in process, and behaviour checks.

Names are loaded on first use, as those of the package are: `engines bench` and `engines chaos` live here too, and need
neither the engines nor the migrations in their own process.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .engine_checks import check_engine
    from .policy_checks import check_policy
    from .stack import Stack, in_process, local_stack

__all__ = ["Stack", "check_engine", "check_policy", "in_process", "local_stack"]

_HOME_OF = {
    "Stack": "stack",
    "check_engine": "engine_checks",
    "check_policy": "policy_checks",
    "in_process": "stack",
    "local_stack": "stack",
}


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value
