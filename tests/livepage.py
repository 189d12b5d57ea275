"""What tests of the page do and wait for in Chromium."""

import io
import os
import time
from pathlib import Path

import numpy as np
from PIL import Image as Pillow
from playwright.sync_api import Page

PATIENCE = 40.0  # seconds; a busy machine is slow, and no test is about speed


def until(page: Page, condition: str) -> None:
    """Wait until a JavaScript expression holds: Playwright's own way needs eval, which the page forbids."""
    end = time.monotonic() + PATIENCE
    while not page.evaluate(condition):
        assert time.monotonic() < end, f"{condition}: the page says {page.inner_text('#state')!r}"
        page.wait_for_timeout(50)


def look(page: Page, name: str) -> None:
    """Keep a screenshot where PUPPETCAM_SCREENSHOTS names a folder."""
    if folder := os.environ.get("PUPPETCAM_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def start(page: Page) -> None:
    page.click("#start")
    until(page, "puppetcam.state === 'live' && puppetcam.ages.length > 3 && puppetcam.stats.face === 'tracked'")


def shown(page: Page) -> "np.ndarray[tuple[int, int], np.dtype[np.int16]]":
    """The result as it is on the screen, grey."""
    picture = Pillow.open(io.BytesIO(page.locator("#frame").screenshot()))
    return np.asarray(picture.convert("L").resize((400, 400)), np.int16)  # a slow machine changes the result's size


def chosen(name: str) -> str:
    return f"document.querySelector('[title=\"{name}\"]')?.ariaPressed === 'true'"
