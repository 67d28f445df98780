"""A real browser over the DevTools protocol: a page's text and a picture of it."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

START = 600.0
NAMES = ("chromium", "chromium-browser", "google-chrome")


class BrowserError(Exception):
    """The browser did not start, or a page did not become what it should in time."""


def find_browser() -> str | None:
    """The path of Chromium or Chrome; None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Page:
    """One tab."""

    def __init__(self, socket: Any) -> None:
        """Take a tab.

        Args:
            socket: Its DevTools connection.
        """
        self._socket, self._ids = socket, itertools.count(1)

    def ask(self, method: str, **parameters: object) -> dict[str, Any]:
        """Call a method of the protocol and return its result.

        Raises:
            BrowserError: The browser refuses it.
        """
        number = next(self._ids)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        end = time.monotonic() + START
        while time.monotonic() < end:
            found = json.loads(self._socket.recv(timeout=START))
            if found.get("id") == number:
                if "error" in found:
                    raise BrowserError(f"{method}: {found['error']['message']}")
                return dict(found["result"])
        raise BrowserError(f"{method}: no answer within {START:g} s")

    def run(self, script: str) -> Any:
        """The value of a piece of JavaScript."""
        return self.ask("Runtime.evaluate", expression=script)["result"].get("value")

    def text(self) -> str:
        """What can be read on the page; nothing while it goes to another."""
        return self._told("document.body ? document.body.innerText : ''")

    def path(self) -> str:
        """The path of its address; nothing while it goes to another."""
        return self._told("location.pathname")

    def _told(self, script: str) -> str:
        # A page that is left in the middle of a question is no page to ask.
        with contextlib.suppress(BrowserError):
            return str(self.run(script) or "")
        return ""

    def open(self, url: str, *words: str, deadline: float = 300.0) -> str:
        """Go to an address and wait until the page has all words.

        Args:
            url: The address.
            words: What it shall have.
            deadline: Seconds.

        Returns:
            Its text then.

        Raises:
            BrowserError: It did not have them in time.
        """
        self.ask("Page.navigate", url=url)
        return self.wait_for(*words, deadline=deadline)

    def wait_for(self, *words: str, deadline: float = 300.0) -> str:
        """Wait until the page has all words; see ``open``."""
        end = time.monotonic() + deadline
        while True:
            said = self.text()
            missing = [word for word in words if word.lower() not in said.lower()]
            if not missing:
                return said
            if time.monotonic() > end:
                where = self.run("location.href")
                raise BrowserError(
                    f"{where} does not say {', '.join(missing)} within {deadline:g} s; it says: "
                    f"{' '.join(said.split())[:300]}"
                )
            time.sleep(0.3)

    def has(self, selector: str) -> bool:
        """Whether there is such an element."""
        return bool(self.run(f"document.querySelector({json.dumps(selector)}) !== null"))

    def click(self, selector: str) -> None:
        """Press a button.

        Raises:
            BrowserError: There is none.
        """
        if not self.has(selector):
            raise BrowserError(f"{self.run('location.href')} has no {selector}")
        self.run(f"document.querySelector({json.dumps(selector)}).click()")

    def fill(self, selector: str, value: str) -> None:
        """Type into a field, in place of what it holds, as a framework that watches it sees it.

        Raises:
            BrowserError: There is none.
        """
        if not self.has(selector):
            raise BrowserError(f"{self.run('location.href')} has no {selector}")
        field = f"document.querySelector({json.dumps(selector)})"
        self.run(f"{field}.focus(); {field}.select()")
        self.ask("Input.insertText", text=value)

    def picture(self, file: Path) -> None:
        """Write a picture of what can be seen."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot")["data"]))


@contextlib.contextmanager
def browser_page(width: int = 1400, height: int = 1000) -> Iterator[Page]:
    """A browser of one's own with one tab, which is gone afterwards.

    Raises:
        BrowserError: There is no browser, or it did not start.
    """
    from websockets.sync.client import connect

    path = find_browser()
    if path is None:
        raise BrowserError(f"no browser: expected {', '.join(NAMES)} on the PATH.")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        command = [path, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"]
        command += ["--disable-dev-shm-usage", "--no-proxy-server", "--remote-debugging-port=0"]
        command += [f"--window-size={width},{height}", f"--user-data-dir={folder}", "about:blank"]
        environment = {**os.environ, "HOME": folder}
        process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            address = _address(Path(folder), process)
            # A browser that has only just started may be slow to answer.
            with connect(
                address, max_size=None, proxy=None, open_timeout=START, ping_interval=None
            ) as socket:
                page = Page(socket)
                page.ask("Page.enable")
                yield page
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)


def _address(folder: Path, process: subprocess.Popen[bytes]) -> str:
    import urllib.request

    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + START
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError, ValueError, IndexError):
            port = int((folder / "DevToolsActivePort").read_text().split()[0])
            with opener.open(f"http://127.0.0.1:{port}/json/list", timeout=10) as answer:
                tabs = [each for each in json.loads(answer.read()) if each["type"] == "page"]
            return str(tabs[0]["webSocketDebuggerUrl"])
        time.sleep(0.2)
    raise BrowserError(f"the browser did not start (exit code {process.poll()})")
