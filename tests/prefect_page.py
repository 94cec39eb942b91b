"""Prefect's page in a real browser, for a person who has logged in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from playwright.sync_api import Browser, Page, expect

from tests.stack import RunningStack


@contextlib.contextmanager
def logged_in(browser: Browser, stack: RunningStack) -> Iterator[Page]:
    """A page of Prefect after the login; the browser forgets it at the end.

    Leave it before you wait for a run: a browser without a GPU draws the spinner of the run with most of a core.
    """
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    page = context.new_page()
    page.goto(f"{stack.prefect}/v2/login")
    page.get_by_role("textbox").first.fill(stack.credentials.login)
    page.keyboard.press("Enter")
    page.wait_for_url("**/dashboard**")
    yield page
    context.close()


def submit_form(page: Page, stack: RunningStack, deployment_id: str) -> str:
    """Start a run from its deployment's form, untouched; return its id."""
    page.goto(f"{stack.prefect}/v2/deployments/deployment/{deployment_id}/run")
    expect(page.get_by_text("steps (Optional)")).to_be_visible()
    with page.expect_response("**/create_flow_run") as answer:
        page.get_by_role("button", name="Submit").click()
    return str(answer.value.json()["id"])
