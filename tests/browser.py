"""The system's Chromium without a window, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

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
        running = playwright.chromium.launch(executable_path=program, args=list(OPTIONS))
        expect.set_options(timeout=60_000)  # a page of Prefect is slow where two cores are busy
        yield running
        running.close()
