"""Airflow's own pages, used as a person does who starts a run by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping

from smoke.compose.browser import Page
from smoke.waits import until

FORM = ("Hospitals", "Strategy", "Rounds", "Overrides")
"""What the trigger form of a study asks for."""
SUBMIT = "[data-testid=trigger-dag-submit]"


def sign_in(page: Page, url: str, user: str, password: str) -> None:
    """Sign in to Airflow.

    Args:
        page: A tab.
        url: Airflow's, without a slash at the end.
        user: Who signs in.
        password: The user's.
    """
    page.open(f"{url}/", "sign in")
    page.fill("input[name=username]", user)
    page.fill("input[name=password]", password)
    page.click("button[type=submit]")
    until("it is signed in", lambda: (at := page.path()) and "/auth" not in at, 180)


def open_form(page: Page, url: str, dag: str, title: str) -> None:
    """Open a DAG's page and its trigger form.

    Args:
        page: A tab that is signed in.
        url: Airflow's.
        dag: The DAG.
        title: What its page says.
    """
    page.open(f"{url}/dags/{dag}", title, "Trigger")
    button = (
        "[...document.querySelectorAll('button')].find(e => e.innerText.trim() ==="
        " 'Trigger' || e.getAttribute('aria-label') === 'Trigger Dag')"
    )
    until("the button for the form is there", lambda: page.run(f"!!{button}"), 180)
    page.run(f"{button}.click()")
    page.wait_for(*FORM)
    until("the form's button is there", lambda: page.has(f"{SUBMIT}:not([disabled])"), 180)


def unpauses(page: Page) -> bool:
    """Whether the open form will let a paused DAG run; else the run would wait for ever."""
    found = page.run(
        "[...document.querySelectorAll('[role=dialog] label')].filter(e =>"
        " /^Unpause/.test(e.innerText.trim())).map(e => e.querySelector('input').checked)[0]"
    )
    return bool(found)


def press_trigger(page: Page, values: Mapping[str, str]) -> None:
    """Fill in the open form and press *Trigger*.

    Args:
        page: A tab with the form.
        values: What to write into fields, by the name of the DAG's param; others stay as they are.
    """
    for name, value in values.items():
        field = f"[name=element_{name}]"
        page.fill(field, value)
        written = f"document.querySelector({json.dumps(field)}).value"
        until(f"{name} is written", lambda said=written, v=value: page.run(said) == v, 180)
    page.click(SUBMIT)
    until("the form is closed", lambda: not page.has(SUBMIT), 180)
