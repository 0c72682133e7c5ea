"""The live page in a real browser."""

from __future__ import annotations

import os
import shutil

import pytest
from playwright.sync_api import Page, sync_playwright

from running_system import System

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture
def page():
    """A fresh page; collects everything the browser complains about."""
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("CI must have Chromium: `apt-get install chromium`")
        pytest.skip("no Chromium on this machine: `apt-get install chromium`")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield browser.new_page()
        finally:
            browser.close()


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
