"""The stack's pages in a real browser, where there is one."""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from smoke.compose.airflow_pages import open_form, press_trigger, sign_in, unpauses
from smoke.compose.browser import Page, browser_page, find_browser
from smoke.http import page_of
from smoke.table import Table


@dataclass(frozen=True)
class Pages:
    """What a person would look at.

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

        Args:
            values: What to write into the form.

        Returns:
            Whether it was done: not without a browser.
        """
        if self._no_browser("form", "a run is triggered in Airflow's form"):
            return False
        with browser_page() as page:
            sign_in(page, self.airflow, self.user, self.password)
            open_form(page, self.airflow, self.dag, "Stroke risk")
            page.wait_for("Elderly urban")
            self._shot(page, "trigger-form")
            self.table.check(
                "form",
                "the form will let a paused DAG run unless it is told not to",
                unpauses(page),
            )
            press_trigger(page, values)
        return True

    def look(self, run: str) -> None:
        """See that every page answers, and what a run and its model look like in a browser.

        Args:
            run: Airflow's id of it.
        """
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
            sign_in(page, self.airflow, self.user, self.password)
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
            self.table.leave(name, what, why)
        return True

    def _shot(self, page: Page, name: str) -> None:
        if self.shots is not None:
            page.picture(self.shots / f"{name}.png")
        self.table.check(f"page-{name}", f"the page in a browser: {name}", True)
