"""Pages made from the code say what the code says."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SPEC = importlib.util.spec_from_file_location("generate_reference", ROOT / "scripts" / "generate_reference.py")
assert SPEC is not None
assert SPEC.loader is not None
GENERATE = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(GENERATE)


@pytest.mark.parametrize("name", GENERATE.PAGES_BY_NAME)
def test_a_generated_page_is_up_to_date(name: str) -> None:
    """`make docs` writes it; forgetting that fails here."""
    page = (ROOT / "docs" / "reference" / name).read_text()
    assert GENERATE.PAGES_BY_NAME[name]() == page, "run `make docs`"


def test_every_decision_record_is_listed() -> None:
    """The index names each record, in order, and nothing else."""
    folder = ROOT / "docs" / "adr"
    records = sorted(path.name for path in folder.glob("0*.md"))
    listed = [
        line.rsplit("(", 1)[1].rstrip(")") for line in (folder / "README.md").read_text().splitlines() if "](0" in line
    ]
    assert listed == records
