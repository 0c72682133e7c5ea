"""The shapes of load every system is given, and what counts as one measured task."""

from .shapes import SHAPES, Measured, Submitter

__all__ = ["SHAPES", "Measured", "Submitter"]
