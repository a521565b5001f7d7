"""A real browser, without a window: Chromium, driven by Selenium; loopback and files only."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

QUIET = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
QUIET += ("--disable-component-update", "--disable-sync", "--disable-default-apps", "--no-default-browser-check")


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A browser with a fresh profile, one for a file's tests; they are skipped where there is no Chromium."""
    with browser(tmp_path_factory.mktemp("browser")) as driver:
        yield driver


@contextlib.contextmanager
def browser(folder: Path) -> Iterator[Any]:
    """Yield a driver whose profile is in ``folder``."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs chromium and chromedriver on the path")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless=new", *QUIET, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver))
    try:
        yield started
    finally:
        started.quit()


def show(opened: Any, page: Path, width: int = 1280, height: int = 900, *, dark: bool = False) -> None:
    """Open a page from disk, on a screen of this size, for a reader who likes it dark, or light."""
    screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    opened.get("about:blank")
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    look(opened, dark=dark)
    for log in ("performance", "browser"):
        opened.get_log(log)  # of what was shown before
    opened.get(page.as_uri())


def look(opened: Any, *, dark: bool) -> None:
    """Have pages think that the reader likes them dark, or light."""
    feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


def requested(opened: Any) -> list[str]:
    """Return the addresses that pages have asked for since this was last called, data in the page itself aside."""
    events = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    found = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
    return [asked["request"]["url"] for asked in found if not asked["request"]["url"].startswith("data:")]


def complaints(opened: Any) -> list[str]:
    """Return what pages have written to the console since this was last called."""
    return [entry["message"] for entry in opened.get_log("browser")]


def draw_all(opened: Any, seconds: float = 20, *, folds: bool = True) -> None:
    """Open all folds if asked to, look at all charts that are not folded away, and wait until they are drawn."""
    from selenium.webdriver.support.ui import WebDriverWait

    if folds:
        opened.execute_script("document.querySelectorAll('details.fold').forEach((fold) => { fold.open = true; })")
    charts = "[...document.querySelectorAll('figure.chart')].filter((figure) => figure.checkVisibility())"
    for number in range(opened.execute_script(f"return {charts}.length")):
        opened.execute_script(f"{charts}[{number}].scrollIntoView()")
        drawn = f"return 'drawn' in {charts}[{number}].dataset"
        WebDriverWait(opened, seconds, poll_frequency=0.05).until(lambda d, drawn=drawn: d.execute_script(drawn))
    opened.execute_script("scrollTo(0, 0)")


def screenshot(opened: Any, path: Path) -> None:
    """Write a picture of the whole page."""
    import base64

    shot = opened.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "format": "png"})
    path.write_bytes(base64.b64decode(shot["data"]))
