"""How the live page does in a real Chromium: its camera plays a clip, and latency is read out of what it shows."""

import shutil
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import psutil

from realtime.errors import InputError
from realtime.sources import Frame

if TYPE_CHECKING:
    from playwright.sync_api import Page

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# A camera without a question, no requests of the browser's own, and no graphics card.
FLAGS = (
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
CLIP_RATE = 30  # frames per second
PATIENCE = 60.0  # seconds that the page may take for a step
SETTLE = 5.0  # seconds after the camera's start that are not measured
SWITCHES = 6  # of the photo, at the end
WINDOW = 30.0  # seconds at either end that drift is taken over; half of a shorter measurement
# From a click on another photo to the first picture of it, in milliseconds; photos that ship differ in their shapes.
SWITCH = """() => new Promise(resolve => {
    const start = performance.now();
    const shown = () => resolve(performance.now() - start);
    document.querySelector("#result").addEventListener("resize", shown, { once: true });
    document.querySelector("#gallery button[aria-pressed='false']").click();
})"""


def find_browser() -> str:
    """The path of an installed Chromium. Raises InputError without one."""
    for name in BROWSERS:
        if path := shutil.which(name):
            return path
    raise InputError("no Chromium is installed: apt-get install chromium, or your system's way, is needed")


def write_clip(frames: Iterable[Frame], path: Path) -> None:
    """Pictures as a camera of Chromium's plays them: motion JPEG, over and over."""
    with av.open(path, "w", format="mjpeg") as film:
        video = film.add_stream("mjpeg", rate=CLIP_RATE, options={"qmin": "2", "qmax": "4"})
        video.pix_fmt = "yuvj420p"
        for image in (frame.image for frame in frames if frame.image is not None):
            if not video.codec_context.is_open:
                video.height, video.width = image.shape[:2]
            film.mux(video.encode(av.VideoFrame.from_ndarray(image, "rgb24").reformat(format="yuvj420p")))
        film.mux(video.encode(None))


def measure_page(url: str, server: int, clip: Path, seconds: float) -> dict[str, Any]:
    """Figures of a live server at `url`, process number `server`, whose visitor's camera plays `clip`.

    Latency is from a camera picture's arrival in the page to its result's display. Raises InputError without Chromium
    or Playwright.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise InputError("bench --web needs Playwright: pip install 'puppetcam[dev]'") from error
    arguments = [*FLAGS, f"--use-file-for-fake-video-capture={clip}"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=arguments)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        started = time.monotonic()
        page.goto(url)
        _wait(page, "puppetcam.shown.length > 0")
        page_ready_s = time.monotonic() - started
        started = time.monotonic()
        page.click("#start")
        _wait(page, "puppetcam.ages.length > 0")
        first_result_s = time.monotonic() - started
        page.wait_for_timeout(SETTLE * 1000)
        figures = _follow(page, psutil.Process(server), seconds)
        figures["photo_switch_ms"] = _switch(page)
        browser.close()
    return {**figures, "page_ready_s": round(page_ready_s, 2), "first_result_s": round(first_result_s, 2)}


def _wait(page: "Page", condition: str) -> None:
    """Wait for a JavaScript expression: Playwright's own way needs eval, which the page forbids."""
    end = time.monotonic() + PATIENCE
    while not page.evaluate(condition):
        if time.monotonic() > end:
            raise InputError(f"the page does not get there within {PATIENCE:.0f} s: it says {_said(page)!r}")
        page.wait_for_timeout(20)


def _said(page: "Page") -> str:
    return f"{page.inner_text('#state')} {page.text_content('#hint')}".strip()


def _follow(page: "Page", server: psutil.Process, seconds: float) -> dict[str, Any]:
    """Figures of the next seconds of a page whose camera is on."""
    memory, start = [server.memory_info().rss], page.evaluate("performance.now()")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        page.wait_for_timeout(min(1000.0, 1000 * max(0.0, end - time.monotonic())))
        memory.append(server.memory_info().rss)
    shown, ages, stats = page.evaluate(
        "start => [puppetcam.shown.filter(([t]) => t >= start), puppetcam.ages.filter(([t]) => t >= start),"
        " puppetcam.stats]",
        start,
    )
    if len(ages) < 2:
        raise InputError(f"the page shows no results of the camera: it says {_said(page)!r}")
    (first_at, first_count), (last_at, last_count) = shown[0], shown[-1]
    latencies = [age for _, age in ages]
    window = 1000 * min(WINDOW, seconds / 2)
    early = [age for moment, age in ages if moment - start < window]
    late = [age for moment, age in ages if ages[-1][0] - moment < window]
    # Memory is compared from a third of the time on, when everything was used once.
    settled = memory[len(memory) // 3]
    return {
        "shown_fps": round(1000 * (last_count - first_count) / (last_at - first_at), 1),
        "glass_to_glass_ms": _spread(latencies),
        "drift": round(float(np.median(late) / np.median(early)), 3),
        "memory_growth": round(memory[-1] / settled - 1, 4),
        "stages_ms": stats["stages"],
        "made_fps": stats["fps"],
        "dropped": stats["dropped"],
        "engine": stats["engine"],
        "precision": stats["precision"],
        "device": stats["device"],
        "seconds": seconds,
    }


def _switch(page: "Page") -> dict[str, float]:
    """Milliseconds from choosing another photo to seeing it."""
    taken = []
    for _ in range(SWITCHES):
        taken.append(page.evaluate(SWITCH))
        page.wait_for_timeout(500)
    return {"median": round(float(np.median(taken)), 1), "worst": round(max(taken), 1)}


def _spread(latencies: Sequence[float]) -> dict[str, float]:
    median, p95 = np.percentile(latencies, [50, 95])
    return {"median": round(float(median), 1), "p95": round(float(p95), 1)}
