"""The stack's pages in a real browser, where there is one, used as a person does."""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from smoke.compose.browser import Page, browser_page, find_browser
from smoke.http import page_of
from smoke.table import Table
from smoke.waits import until

FORM = ("Hospitals", "Strategy", "Rounds", "Overrides")
"""What the trigger form of a study asks for."""
SUBMIT = "[data-testid=trigger-dag-submit]"


@dataclass(frozen=True)
class Pages:
    """What a user sees.

    Attributes:
        table: Gets the checks.
        airflow: Airflow's address.
        mlflow: MLflow's address.
        user: Who signs in to Airflow.
        password: The user's.
        dag: The DAG.
        shots: Folder for pictures; None for none.
        must: Whether a missing browser is a check that does not hold.
    """

    table: Table
    airflow: str
    mlflow: str
    user: str
    password: str
    dag: str
    shots: Path | None
    must: bool

    def trigger(self, values: Mapping[str, str]) -> bool:
        """Start a run in Airflow's form.

        Returns:
            Whether it was done: not without a browser.
        """
        if self._no_browser("form", "a run is triggered in Airflow's form"):
            return False
        with browser_page() as page:
            _sign_in(page, self.airflow, self.user, self.password)
            _open_form(page, self.airflow, self.dag, "Stroke risk")
            page.wait_for("Elderly urban")
            self._shot(page, "trigger-form")
            self.table.check(
                "form",
                "the form will let a paused DAG run by default",
                _unpauses(page),
            )
            _press_trigger(page, values)
        return True

    def look(self, run: str) -> None:
        """Check that every page answers, and open a run and its model in a browser."""
        for name, url in (("Airflow", self.airflow), ("MLflow", self.mlflow)):
            said = page_of(url + "/")
            self.table.check(
                name.lower(),
                f"{name}'s page answers",
                b"<html" in said.lower(),
                f"{len(said)} bytes",
            )
        if self._no_browser("page", "the pages in a browser"):
            return
        path = f"/dags/{self.dag}/runs/{urllib.parse.quote(run, safe='')}"
        with browser_page() as page:
            _sign_in(page, self.airflow, self.user, self.password)
            page.open(self.airflow + path, "collect", "promote", "success")
            self._shot(page, "run")
            page.open(f"{self.mlflow}/#/models/fedrisk-stroke", "champion")
            self._shot(page, "champion")

    def _no_browser(self, name: str, what: str) -> bool:
        if find_browser() is not None:
            return False
        why = "there is no browser (chromium)"
        if self.must:
            self.table.check(name, what, False, why)
        else:
            self.table.skip(name, what, why)
        return True

    def _shot(self, page: Page, name: str) -> None:
        if self.shots is not None:
            page.picture(self.shots / f"{name}.png")
        self.table.check(f"page-{name}", f"the page in a browser: {name}", True)


def _sign_in(page: Page, url: str, user: str, password: str) -> None:
    """Sign in to Airflow."""
    page.open(f"{url}/", "sign in")
    page.fill("input[name=username]", user)
    page.fill("input[name=password]", password)
    page.click("button[type=submit]")
    until("it is signed in", lambda: (at := page.path()) and "/auth" not in at, 600)


def _open_form(page: Page, url: str, dag: str, title: str) -> None:
    """Open a DAG's page, which has its title, and its trigger form."""
    page.open(f"{url}/dags/{dag}", title, "Trigger")
    button = (
        "[...document.querySelectorAll('button')].find(e => e.innerText.trim() ==="
        " 'Trigger' || e.getAttribute('aria-label') === 'Trigger Dag')"
    )
    until("the button for the form is there", lambda: page.run(f"!!{button}"), 600)
    page.run(f"{button}.click()")
    page.wait_for(*FORM)
    until("the form's button is there", lambda: page.has(f"{SUBMIT}:not([disabled])"), 600)


def _unpauses(page: Page) -> bool:
    """Whether the open form will let a paused DAG run; else the run would wait indefinitely."""
    found = page.run(
        "[...document.querySelectorAll('[role=dialog] label')].filter(e =>"
        " /^Unpause/.test(e.innerText.trim())).map(e => e.querySelector('input').checked)[0]"
    )
    return bool(found)


def _press_trigger(page: Page, values: Mapping[str, str]) -> None:
    """Fill in the open form, by names of the DAG's params, and press *Trigger*."""
    for name, value in values.items():
        field = f"[name=element_{name}]"
        page.fill(field, value)
        written = f"document.querySelector({json.dumps(field)}).value"
        until(f"{name} is written", lambda said=written, v=value: page.run(said) == v, 600)
    page.click(SUBMIT)
    until("the form is closed", lambda: not page.has(SUBMIT), 600)
