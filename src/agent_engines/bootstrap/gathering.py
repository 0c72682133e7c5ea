"""Gathering: many parts side by side, each with its own time; what fails or hangs is told in its place and stops nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from agent_engines.domain.masking import Masker

ERROR_SUFFIX = ".error.txt"


@dataclass(frozen=True, slots=True)
class Part:
    """One file: its name in the bundle, and who makes it. Text is taken as text, anything else becomes JSON."""

    name: str
    gather: Callable[[], Awaitable[Any]]
    seconds: float = 8.0


@dataclass(frozen=True, slots=True)
class Gathered:
    """`name` ends with ERROR_SUFFIX where `problem` is told in the place of the content."""

    name: str
    content: bytes
    seconds: float
    problem: str = ""


async def gathered(parts: Sequence[Part], masker: Masker) -> list[Gathered]:
    """One for each part, in order; as long as the slowest part may take. Everything has gone through the masker."""
    return list(await asyncio.gather(*(_one(part, masker) for part in parts)))


async def _one(part: Part, masker: Masker) -> Gathered:
    start = time.monotonic()
    problem = ""
    content: Any = None
    try:
        async with asyncio.timeout(part.seconds):
            content = await part.gather()
            content = await asyncio.to_thread(_written, content, masker)
    except TimeoutError:
        problem = f"not within {part.seconds:g} s"
    except Exception as error:
        # Whatever it is, it is told in the bundle: the rest is wanted all the more.
        problem = masker.text(f"{type(error).__name__}: {error}")
    seconds = round(time.monotonic() - start, 2)
    if problem:
        return Gathered(
            part.name + ERROR_SUFFIX, f"{part.name} could not be had: {problem}\n".encode(), seconds, problem
        )
    return Gathered(part.name, content, seconds)


def _written(content: Any, masker: Masker) -> bytes:
    text = masker.text(content) if isinstance(content, str) else masker.json(content) + "\n"
    return text.encode("utf-8", "replace")
