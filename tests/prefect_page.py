"""Prefect's page in a real browser, for a person who has logged in."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from http import HTTPStatus

from playwright.sync_api import Browser, Locator, Page, Response, expect

from tests.stack import RunningStack

_TRIES = 10


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

    def fill() -> Locator:
        page.goto(f"{stack.prefect}/v2/deployments/deployment/{deployment_id}/run")
        expect(page.get_by_text("steps (Optional)")).to_be_visible()
        return page.get_by_role("button", name="Submit")

    return str(served(page, fill, "**/create_flow_run").json()["id"])


def served(page: Page, fill: Callable[[], Locator], address: str) -> Response:
    """Fill a form and press its button, which sends a request to an address; return the answer.

    It is done again, as a person would, while the server answers 503, which it does for a busy SQLite file.

    Args:
        fill: opens and fills the form; returns the button.
    """
    for _ in range(_TRIES):
        button = fill()
        with page.expect_response(address) as answer:
            button.click()
        if answer.value.status != HTTPStatus.SERVICE_UNAVAILABLE:
            break
        page.wait_for_timeout(2000)
    assert answer.value.ok, (address, answer.value.status, answer.value.text())
    return answer.value
