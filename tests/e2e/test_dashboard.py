"""The live page in a real browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from running_system import System

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("CI must have Chromium: `apt-get install chromium`")
        pytest.skip("no Chromium on this machine: `apt-get install chromium`")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A fresh page that shares nothing with those before: no cache, no storage, no routes."""
    context = browser.new_context()
    try:
        yield context.new_page()
    finally:
        context.close()


def test_the_page_shows_the_fleet_and_why_a_task_went_where(fleet: System, page: Page) -> None:
    """Agents, the latest decision with its reason; no error in the console, nothing from another host."""
    complaints: list[str] = []
    foreign: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: foreign.append(request.url) if not request.url.startswith(fleet.url) else None)
    with fleet.http() as http:
        decided = http.post("/route-task", params={"wait": 30}, json={"task_type": "test"}).json()
    page.goto(f"{fleet.url}/")
    page.get_by_text("misbehaving").first.wait_for(timeout=15_000)
    page.get_by_text(decided["reasoning"][:30]).first.wait_for(timeout=15_000)
    assert complaints == []
    assert foreign == []


def test_text_from_tasks_cannot_become_markup(fleet: System, page: Page) -> None:
    """A task type that looks like HTML is shown as text."""
    with fleet.http() as http:
        http.post("/v1/decisions", json={"task_type": "<img src=x onerror=alert(1)>"})
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    page.goto(f"{fleet.url}/")
    page.get_by_text("misbehaving").first.wait_for(timeout=15_000)
    assert dialogs == []
    assert page.locator("img[src=x]").count() == 0


def test_the_api_page_needs_no_other_host(fleet: System, page: Page) -> None:
    """/docs shows the routes from this machine alone."""
    foreign: list[str] = []
    page.on("request", lambda request: foreign.append(request.url) if not request.url.startswith(fleet.url) else None)
    page.goto(f"{fleet.url}/docs")
    page.get_by_text("/route-task").first.wait_for(timeout=15_000)
    assert foreign == []


AGENT: dict[str, Any] = {
    "name": "summarizer",
    "agent_type": "custom",
    "status": "healthy",
    "breaker": "closed",
    "breaker_cause": "",
    "capabilities": ["summarize"],
    "metadata": {},
    "replicas": [],
}
OVERVIEW: dict[str, Any] = {
    "agents": [AGENT],
    "performance": None,
    "scaling": None,
    "counts": {},
    "decisions": [],
    "problem": None,
    "server_time": "2026-01-01T00:00:00.000Z",
}


def answers(page: Page, overview: dict[str, Any], status: int = 200) -> None:
    """From now on the page reads this."""
    page.unroute("**/v1/overview")
    page.route("**/v1/overview", lambda route: route.fulfill(status=status, json=overview))


def test_a_database_that_is_away_is_named_and_the_fleet_stays_in_sight(fleet: System, page: Page) -> None:
    """Unknown is not none: no zero dead letters, no empty list of decisions."""
    answers(page, {**OVERVIEW, "counts": None, "decisions": None, "problem": "postgres does not answer"})
    page.goto(f"{fleet.url}/")
    page.locator("#banner").get_by_text("postgres does not answer").wait_for(timeout=15_000)
    assert page.locator("#fleet").get_by_text("summarizer").is_visible()
    assert page.locator(".tile", has_text="Dead letters").locator(".tile-value").inner_text() == "–"
    assert not page.get_by_text("Nothing has been decided yet").is_visible()
    answers(page, OVERVIEW)
    page.get_by_text("Nothing has been decided yet").wait_for(timeout=15_000)
    assert not page.locator("#banner").is_visible()


def test_a_server_that_refuses_is_not_called_silent(fleet: System, page: Page) -> None:
    """The page repeats what the server said."""
    answers(page, {"status": 503, "detail": "the router is starting"}, status=503)
    page.goto(f"{fleet.url}/")
    page.locator("#banner").get_by_text("the router is starting").wait_for(timeout=15_000)
    assert "has not answered" not in page.locator("#banner").inner_text()


def test_an_agent_without_work_says_why_and_claims_no_success(fleet: System, page: Page) -> None:
    """An open breaker shows its cause, a resting replica its reason; no task is no success."""
    resting = {"replica": "r1", "state": "running", "age_seconds": 1.0, "load": {"slots": 2, "paused": "11 of 20 died"}}
    agent = {**AGENT, "breaker": "open", "breaker_cause": "10 failures of ValueError", "replicas": [resting]}
    figures = {"agent": "summarizer", "task_type": "summarize", "count": 0, "error_rate": 0.0, "rate_per_s": 0.0}
    answers(page, {**OVERVIEW, "agents": [agent], "performance": {"agents": [figures], "fleet": {}}})
    page.goto(f"{fleet.url}/")
    page.get_by_text("10 failures of ValueError").wait_for(timeout=15_000)
    assert page.get_by_text("1 replica paused: 11 of 20 died").is_visible()
    page.get_by_role("button", name="summarizer").click()
    assert "nothing ran lately" in page.locator("tr.more").inner_text()
    assert "100" not in page.locator("tr.more").inner_text()


def test_what_is_wrong_stands_first_among_many(fleet: System, page: Page) -> None:
    """A lost agent is not looked for below two hundred others."""
    others = [{**AGENT, "name": f"agent-{number:03}"} for number in range(200)]
    answers(page, {**OVERVIEW, "agents": [*others, {**AGENT, "name": "z-lost", "status": "lost"}]})
    page.goto(f"{fleet.url}/")
    page.get_by_text("201 agents, 0 replicas, 1 not well").wait_for(timeout=15_000)
    assert page.locator("#fleet-rows .name").first.inner_text() == "z-lost"


def test_reasons_beside_long_names_stay_readable_on_a_telephone(fleet: System, page: Page) -> None:
    """The longest name an agent may have leaves room for why it could not be chosen."""
    decision = {
        "request_id": "r", "task_type": "summarize", "selected_agent": "summarizer", "confidence": 0.9, "propensity": 1.0,
        "reasoning": "the only one", "strategy": "adaptive", "policy_version": "adaptive-1", "candidates": [],
        "rejected": [{"agent": "x" * 64, "reason": "breaker open: 10 failures of ValueError"}], "explanation": [],
        "created_at": "2026-01-01T00:00:00.000Z",
    }  # fmt: skip
    page.set_viewport_size({"width": 420, "height": 900})
    answers(page, {**OVERVIEW, "decisions": [decision]})
    page.goto(f"{fleet.url}/")
    page.locator("#decisions summary").click(timeout=15_000)
    reason = page.locator(".detail dd").bounding_box()
    assert reason is not None
    assert reason["width"] > 120
