"""Pages for people: everything local, nothing inline, nobody frames them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent_engines.api.pages import mounted
from agent_engines.api.problems import PROBLEMS
from api_house import House, house_fixture

house = house_fixture(agents=False)
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_a_page_comes_with_the_strictest_policy(house: House, path: str) -> None:
    page = await house.http.get(path)
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_a_page_loads_nothing_from_elsewhere_and_runs_nothing_inline(house: House, path: str) -> None:
    page = (await house.http.get(path)).text
    for target in re.findall(r'(?:src|href)="([^"#]+)', page):
        assert "//" not in target
        found = await house.http.get(f"/{target.lstrip('/')}")
        assert found.status_code == 200, target
    assert not re.findall(r"<script(?![^>]*src=)", page)
    assert "style=" not in page
    assert not re.findall(r"\son\w+=", page)


async def test_scripts_are_served_as_scripts(house: House) -> None:
    """Browsers refuse modules of another type, whatever the machine's own table says."""
    script = await house.http.get("/docs/docs.js")
    assert script.headers["content-type"] == "text/javascript; charset=utf-8"


async def test_what_has_not_changed_is_not_sent_again(house: House) -> None:
    first = await house.http.get("/docs/docs.css")
    again = await house.http.get("/docs/docs.css", headers={"if-none-match": first.headers["etag"]})
    assert again.status_code == 304
    assert again.content == b""


@pytest.mark.parametrize(
    "path", ["/static/../app.py", "/static/..%2f..%2fapp.py", "/static/", "/docs/", "/docs/../docs", "/static/%00"]
)
async def test_nothing_outside_the_folder_is_served(house: House, path: str) -> None:
    answer = await house.http.get(path)
    assert answer.status_code in (200, 404)
    assert b"import annotations" not in answer.content


async def test_hidden_files_stay_hidden(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<!doctype html>")
    (tmp_path / ".secret").write_text("no")
    (tmp_path / "js").mkdir()
    (tmp_path / "js" / "a.js").write_text("1")
    assert sorted(mounted(tmp_path)) == ["/", "/static/js/a.js"]


async def test_every_problem_has_its_paragraph_on_the_docs_page(house: House) -> None:
    described = (await house.http.get("/openapi.json")).json()["x-problems"]
    assert {entry["type"] for entry in described} == {f"/docs#problem-{kind.slug}" for kind in PROBLEMS.values()}
    assert all(entry["advice"] for entry in described)
