"""Floor 6: the environment is read here, once, and becomes one frozen value."""

from .loader import Row, explain, load_config
from .settings import Config

__all__ = ["Config", "Row", "explain", "load_config"]
