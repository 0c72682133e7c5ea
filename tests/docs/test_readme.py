"""Code on the pages people copy from must run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
SNIPPETS = [(page, index, code) for page in PAGES for index, code in enumerate(BLOCK.findall(page.read_text()))]


@pytest.mark.parametrize(
    ("page", "index", "code"), SNIPPETS, ids=[f"{page.relative_to(ROOT)}-{index}" for page, index, _ in SNIPPETS]
)
def test_python_on_a_page_runs_as_written(page: Path, index: int, code: str) -> None:
    """Every Python block compiles and runs on its own, as a script that is imported."""
    namespace: dict[str, object] = {"__name__": f"snippet_{index}"}
    exec(compile(code, f"{page.name}:{index}", "exec"), namespace)
    assert len(namespace) > 2, "the snippet defines something"


def test_links_between_pages_lead_somewhere() -> None:
    """A relative link in a page names a file that exists."""
    broken = [
        f"{page.relative_to(ROOT)} -> {target}"
        for page in PAGES
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert broken == []
