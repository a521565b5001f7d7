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


@contextlib.contextmanager
def browser(folder: Path, width: int = 1280, height: int = 900, *, dark: bool = False) -> Iterator[Any]:
    """Yield a driver with a fresh profile in ``folder``; skip the test where there is no Chromium."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs chromium and chromedriver on the path")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless=new", *QUIET, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver))
    try:
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        look(opened, dark=dark)
        opened.get("about:blank")  # the browser's own first page asks for much
        opened.get_log("performance")
        yield opened
    finally:
        opened.quit()


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
