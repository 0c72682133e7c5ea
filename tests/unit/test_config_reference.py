"""The reference page says what the code does."""

from __future__ import annotations

from pathlib import Path

from agent_engines.config.reference import reference
from agent_engines.config.variables import VARIABLES

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "configuration.md"


def test_the_page_is_what_the_table_of_variables_makes() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), (
        "run: python -m agent_engines.config > docs/reference/configuration.md"
    )


def test_the_page_names_every_variable_once() -> None:
    text = reference()
    assert all(text.count(f"| `{name}` |") == 1 for name in VARIABLES)
