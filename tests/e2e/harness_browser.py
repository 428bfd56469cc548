"""A real browser for the console's page: Debian's Chromium and its driver, without a window."""

import contextlib
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
from harness import ROOT, eventually
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

SCREENSHOTS = ROOT / "target" / "screenshots"
"""For a person to look at; not committed."""
DESKTOP, PHONE = (1280, 900), (390, 844)


def missing() -> str | None:
    """Why there can be no browser here."""
    names = [name for name in ("chromium", "chromedriver") if not shutil.which(name)]
    return f"{' and '.join(names)} is not installed (Debian: chromium, chromium-driver)" if names else None


class Browser:
    """A browser with a fresh profile, and the page of one Envoy."""

    def __init__(self, profile: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium")
        arguments = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--no-proxy-server", "--lang=en")
        for argument in (*arguments, "--disable-background-networking", f"--user-data-dir={profile}"):
            options.add_argument(argument)
        # What the page says to the console, and refusals of the policy, which are errors there.
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.profile = profile
        self.driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
        self.size(*DESKTOP)

    def close(self) -> None:
        self.driver.quit()

    # Going and seeing.

    def open(self, port: int, path: str = "/one-balance/") -> None:
        self.driver.get(f"http://127.0.0.1:{port}{path}")

    def size(self, width: int, height: int) -> None:
        self.emulate(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )

    def scheme(self, name: str) -> None:
        """`light` or `dark`."""
        self.emulate("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def emulate(self, command: str, **parameters: Any) -> None:
        self.driver.execute_cdp_cmd(command, parameters)

    def screenshot(self, name: str) -> None:
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.driver.save_screenshot(str(SCREENSHOTS / f"{name}.png"))

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    # The page's parts.

    def one(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return [found for found in self.driver.find_elements(By.CSS_SELECTOR, selector) if found.is_displayed()]

    def text(self, selector: str) -> str:
        return self.one(selector).text

    def rows(self) -> list[str]:
        """What is shown of each key, in one line."""
        return self.run(
            "return [...document.querySelectorAll('#keys tr')].map((row) => row.innerText.replace(/\\s+/g, ' '))"
        )

    def row(self, words: str) -> str:
        """The row with these words in it; empty if there is none."""
        return next((row for row in self.rows() if words in row), "")

    def until(self, holds: Callable[[], Any], timeout: float = 20.0) -> Any:
        """Waits; a part that is replaced meanwhile is looked for again."""

        def look() -> Any:
            try:
                return holds()
            except StaleElementReferenceException:
                return None

        return eventually(look, timeout)

    # What a person does.

    def click(self, selector: str) -> None:
        self.one(selector).click()

    def fill(self, selector: str, text: str) -> None:
        self.one(selector).clear()
        self.one(selector).send_keys(text)

    def press(self, *keys: str) -> None:
        webdriver.ActionChains(self.driver).send_keys(*keys).perform()

    def sign_in(self, auth_key: str) -> None:
        self.fill("#auth", auth_key)
        self.press(Keys.ENTER)

    def choose(self, words: str) -> None:
        """Ticks the box of the row with these words."""
        for row in self.driver.find_elements(By.CSS_SELECTOR, "#keys tr"):
            if words in row.text:
                row.find_element(By.CSS_SELECTOR, "input").click()
                return
        raise AssertionError(f"no row has {words!r}: {self.rows()}")

    # What must hold wherever a test ends.

    def check(self, secrets: set[str], auth_key: str) -> None:
        """The page has said nothing wrong, and a secret is nowhere but in the tab's own storage."""
        console = self.driver.get_log("browser")
        places = {
            "the document": self.run("return document.documentElement.outerHTML"),
            "a field": self.run("return [...document.querySelectorAll('input, textarea')].map((f) => f.value).join()"),
            "the address": self.driver.current_url,
            "local storage": self.run("return JSON.stringify(localStorage)"),
            "cookies": str(self.driver.get_cookies()),
            "the console": str(console),
        }
        tab = self.run("return JSON.stringify(sessionStorage)")
        found = [place for place, text in places.items() for secret in secrets if secret in text]
        found += ["the tab" for secret in secrets - {auth_key} if secret in tab]
        # The browser keeps a tab's storage in its profile, to open the tab again; nothing else may be there.
        files = []
        for file in filter(Path.is_file, self.profile.rglob("*")):
            # The browser is still at work, and its cache comes and goes.
            with contextlib.suppress(FileNotFoundError):
                files.append(file.read_bytes())
        coded = [coding for secret in secrets - {auth_key} for coding in (secret.encode(), secret.encode("utf-16-le"))]
        found += ["the profile" for data in files for secret in coded if secret in data]
        assert not found, f"a secret stands in {found}"
        # Envoy's refusals are shown to people; the console notes them as failed loads.
        bad = [entry["message"] for entry in console if entry["level"] == "SEVERE"]
        bad = [text for text in bad if not re.search(r"status of (401|403|409|413|422|50[23])", text)]
        assert not bad, bad


def require() -> None:
    harness.require("the console's page", missing())
