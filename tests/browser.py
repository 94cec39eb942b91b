"""The system's Chromium without a window, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, expect, sync_playwright

PATIENCE_MS = 180_000
"""Time for each step on a page, those of Prefect and MLflow are slow where cores are busy."""
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
# Chromium's own services look for updates and synchronise; tests know no outside network.
OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture
def browser() -> Iterator[Browser]:
    """A browser for one test, with no credentials in it.

    Playwright's event loop runs in this thread as long as it is open; no other test could start one of its own.
    """
    program = next((path for name in PROGRAMS if (path := shutil.which(name))), None)
    assert program, "The tests of the pages need Chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=list(OPTIONS), timeout=PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)
        new_context = running.new_context

        def new_patient_context(**options: Any) -> BrowserContext:
            context = new_context(**options)
            context.set_default_timeout(PATIENCE_MS)
            return context

        running.new_context = new_patient_context  # type: ignore[method-assign]
        yield running
        running.close()
