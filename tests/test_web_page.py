"""The page in a real Chromium, whose camera plays a clip of a face that talks, then of none."""

import dataclasses
import io
import os
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import av
import httpx
import numpy as np
import pytest
from PIL import Image as Pillow
from playwright.sync_api import Browser, Page, sync_playwright

from realtime.bench import render_clip
from realtime.photo import portrait_path
from tests.facemesh import FaceMeshModels
from tests.webpeer import live_server
from web.bench import FLAGS, find_browser, write_clip
from web.session import PHOTOS

RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
FACE, EMPTY = 120, 90  # frames
PATIENCE = 40.0  # seconds; a busy machine is slow, and no test is about speed


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A camera's view: a face that talks, then an empty room, over and over."""
    path, models = tmp_path_factory.mktemp("clip") / "camera.mjpeg", FaceMeshModels()
    frames = list(render_clip(models, FACE))
    empty = dataclasses.replace(frames[0], image=np.full((480, 640, 3), 70, np.uint8))
    write_clip([*frames, *[empty] * EMPTY], path)
    models.close()
    return path


@pytest.fixture(scope="module")
def browser(clip: Path) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(
            executable_path=find_browser(), args=[*FLAGS, f"--use-file-for-fake-video-capture={clip}"]
        )
        yield made
        made.close()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """The page, open; at the end, what it printed, threw and asked others for must be nothing."""
    made = browser.new_page(viewport={"width": 1280, "height": 900})
    complaints: list[str] = []
    made.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
    made.on("pageerror", lambda error: complaints.append(str(error)))
    made.on("request", lambda asked: None if _is_ours(asked.url, address) else complaints.append(asked.url))
    made.goto(address)
    yield made
    made.close()
    assert complaints == []


def _is_ours(url: str, address: str) -> bool:
    return url.startswith((f"{address}/", "data:", f"blob:{address}/"))


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


def test_a_session_from_the_first_look_to_the_last(page: Page, tmp_path: Path) -> None:
    until(page, "puppetcam.state === 'demo' && puppetcam.shown.length > 20")
    before = shown(page)
    page.wait_for_timeout(700)
    assert np.abs(before - shown(page)).max() > 30  # it moves before any permission
    look(page, "demo")

    start(page)
    assert page.is_visible("#camera")
    page.check("#framing")
    page.wait_for_timeout(500)
    look(page, "live")
    page.keyboard.press("c")
    said = page.inner_text("#hint")
    assert not said or "No face" in said or "keep up" in said  # no complaint, but for a slow machine's

    with page.expect_download() as download:
        page.click("#record")
        until(page, "puppetcam.recording")
        until(page, f"puppetcam.shown.length > {page.evaluate('puppetcam.shown.length')} + 30")
        page.click("#record")
    film = tmp_path / "film.mp4"
    download.value.save_as(film)
    with av.open(film) as container:
        assert "synthetic" in container.metadata["comment"]
        pictures = [picture.to_ndarray(format="gray") for picture in container.decode(video=0)]
    assert len(pictures) > 10
    assert np.abs(pictures[0].astype(int) - pictures[-1]).max() > 20

    with page.expect_download() as download:
        page.keyboard.press("p")
    with Pillow.open(download.value.path()) as snapshot:
        heights = {page.evaluate("document.querySelector('#result').videoHeight") - 18, pictures[0].shape[0] - 2}
        assert snapshot.height in heights  # neither the clock strip nor what it blurs into
        snapshot.load()  # Pillow checks the sums of what it reads
        assert snapshot.info["Comment"] == "synthetic: made with Puppetcam"
        (said,) = ElementTree.fromstring(snapshot.info["XML:com.adobe.xmp"]).iter(f"{RDF}Description")
        assert "/compositeWithTrainedAlgorithmicMedia" in " ".join(said.attrib.values())

    until(page, "puppetcam.stats.face === 'lost'")
    until(page, "document.querySelector('#hint').textContent.includes('No face in view')")
    look(page, "lost")
    until(page, "puppetcam.stats.face === 'tracked'")

    page.click("#start")
    until(page, "puppetcam.state === 'demo'")
    assert page.is_hidden("#self")


# A transfer of pictures, as the browser makes one of what is dropped or pasted.
TRANSFER = """async names => {
    const transfer = new DataTransfer();
    for (const name of names) {
        const blob = await (await fetch(`/portraits/${name}`)).blob();
        transfer.items.add(new File([blob], `${name}.jpg`, { type: "image/jpeg" }));
    }
    return transfer;
}"""
PASTE = "clipboardData => dispatchEvent(new ClipboardEvent('paste', { clipboardData }))"


def chosen(name: str) -> str:
    return f"document.querySelector('[title=\"{name}\"]')?.ariaPressed === 'true'"


def test_photos_are_switched_added_and_refused(page: Page, tmp_path: Path) -> None:
    until(page, "puppetcam.shown.length > 5")
    shape = page.evaluate("document.querySelector('#result').videoWidth")
    page.click("[title='Portrait: collins']")
    until(page, f"document.querySelector('#result').videoWidth !== {shape}")

    page.dispatch_event("body", "drop", {"dataTransfer": page.evaluate_handle(TRANSFER, ["hopper"])})
    page.locator("#consent").wait_for()
    assert page.is_disabled("#agree")
    look(page, "consent")
    page.check("#agreed")
    page.click("#agree")
    until(page, chosen("Your photo 1"))

    blank = tmp_path / "blank.png"
    Pillow.new("RGB", (300, 300), "grey").save(blank)
    page.set_input_files("#file", blank)  # and nobody is asked again
    until(page, "document.querySelector('#refused').open")
    assert "no face" in page.inner_text("#reason")
    look(page, "refused")
    page.click("#refused button")
    assert page.locator("[title='Your photo 2']").count() == 0

    page.evaluate(PASTE, page.evaluate_handle(TRANSFER, ["collins"]))
    until(page, chosen("Your photo 2"))
    look(page, "photos")


def test_an_upload_that_the_server_forgot_is_sent_again(page: Page) -> None:
    until(page, "puppetcam.shown.length > 5")
    with page.expect_request("**/photos?*") as sent:
        page.set_input_files("#file", portrait_path("collins"))
        page.check("#agreed")
        page.click("#agree")
    until(page, chosen("Your photo 1"))
    page.click("[title='Portrait: hopper']")
    until(page, chosen("Portrait: hopper"))
    for _ in range(PHOTOS):  # as many more as the server keeps of one person
        others = portrait_path("hopper").read_bytes()
        assert httpx.post(sent.value.url, content=others, trust_env=False).status_code == 200
    page.click("[title='Your photo 1']")
    until(page, chosen("Your photo 1"))
    assert not page.evaluate("document.querySelector('#refused').open")


def test_a_photo_that_is_refused_later_stays_the_persons_own(page: Page, tmp_path: Path) -> None:
    until(page, "puppetcam.shown.length > 5")
    small = Pillow.new("RGB", (1024, 1024), "grey")  # its eyes are far enough apart at 512 px, and not at 256
    with Pillow.open(portrait_path("hopper")) as portrait:
        small.paste(portrait.resize((256, 320)))
    small.save(tmp_path / "small.png")
    page.set_input_files("#file", tmp_path / "small.png")
    page.check("#agreed")
    page.click("#agree")
    until(page, chosen("Your photo 1"))
    page.select_option("#size", "256")
    until(page, "document.querySelector('#hint').textContent.includes('too small')")
    assert page.input_value("#size") == "512"  # what was refused is not kept
    page.click("[title='Portrait: collins']")
    until(page, chosen("Portrait: collins"))
    page.select_option("#size", "256")
    until(page, "document.querySelector('#size').value === '256'")
    page.click("[title='Your photo 1']")
    until(page, "document.querySelector('#refused').open")
    assert "too small" in page.inner_text("#reason")
    page.click("#refused button")
    assert page.evaluate(chosen("Portrait: collins"))
    page.reload()
    until(page, "puppetcam.shown.length > 5")
    assert page.locator("[title='Your photo 1']").count() == 1


def test_what_was_kept_and_is_not_there_any_more_does_not_stop_the_rest(page: Page) -> None:
    stale = {"source": "clip.mp4", "size": 300, "photo": "collins"}
    page.evaluate("kept => localStorage.setItem('puppetcam', JSON.stringify(kept))", stale)
    page.reload()
    until(page, chosen("Portrait: collins"))
    start(page)
    page.click("#start")
    until(page, "puppetcam.state === 'demo'")


def test_the_record_button_says_what_the_server_does(page: Page) -> None:
    start(page)
    page.keyboard.down("r")
    until(page, "puppetcam.recording")
    for _ in range(10):
        page.keyboard.down("r")  # held
    page.wait_for_timeout(700)
    assert page.inner_text("#record") == "Stop recording"
    page.keyboard.up("r")
    with page.expect_download():
        page.keyboard.press("r")
    until(page, "!puppetcam.recording")


def test_own_photos_are_kept_by_the_browser_alone(page: Page) -> None:
    until(page, "puppetcam.shown.length > 5")
    hopper = page.evaluate("document.querySelector('#result').videoWidth")
    page.set_input_files("#file", portrait_path("collins"))
    page.check("#agreed")
    page.click("#agree")
    until(page, chosen("Your photo 1"))
    page.reload()
    until(page, chosen("Your photo 1"))
    until(page, f"puppetcam.shown.length > 5 && document.querySelector('#result').videoWidth !== {hopper}")
    page.click("[title='Remove your photo 1']")
    until(page, chosen("Portrait: hopper"))
    page.reload()
    until(page, chosen("Portrait: hopper"))
    assert page.locator("[title='Your photo 1']").count() == 0


def test_settings_are_remembered_and_keys_work(page: Page) -> None:
    until(page, "puppetcam.shown.length > 5")
    page.select_option("#preset", "expressive")
    page.select_option("#size", "256")
    until(page, "puppetcam.stats.size === 256")
    page.keyboard.press("m")
    page.keyboard.press("?")
    assert page.is_visible("#keys")
    look(page, "keys")
    page.keyboard.press("Escape")
    page.reload()
    until(page, "puppetcam.stats.size === 256")
    assert page.input_value("#mouth") == "1.4"
    assert not page.is_checked("#mirror")
    page.keyboard.press("a")
    assert page.is_disabled("#mouth")


# Whether the sound of the result is louder than silence at this moment.
LOUD = """(() => {
    const stream = document.querySelector("#result").srcObject;
    if (!stream.getAudioTracks().length) return false;
    window.listener ??= (() => {
        const context = new AudioContext(), analyser = context.createAnalyser();
        context.createMediaStreamSource(stream).connect(analyser);
        return analyser;
    })();
    const wave = new Float32Array(window.listener.fftSize);
    window.listener.getFloatTimeDomainData(wave);
    return Math.max(...wave) > 0.01;
})()"""


def test_a_phone_and_a_second_tab(page: Page, browser: Browser, address: str) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    start(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    look(page, "phone")
    assert page.evaluate("document.querySelector('#result').srcObject.getAudioTracks().length") == 0
    page.check("#microphone")
    until(page, "!document.querySelector('#result').muted")
    until(page, LOUD)  # what Chromium's own microphone hears, a beep, comes back
    page.uncheck("#microphone")
    until(page, "document.querySelector('#result').srcObject.getAudioTracks().length === 0")
    second, third = browser.new_page(), browser.new_page()
    second.goto(address)
    until(second, "puppetcam.shown.length > 5")
    third.on("console", lambda _: None)
    third.goto(address)
    until(third, "document.querySelector('#state').textContent.includes('all 2 places are taken')")
    second.close()
    until(third, "puppetcam.state === 'demo'")  # it tries again by itself
    third.close()
    assert page.evaluate("puppetcam.state") == "live"


def test_a_refused_camera_is_named(browser: Browser, address: str) -> None:
    page = browser.new_page()
    page.add_init_script(
        "navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', 'NotAllowedError'))"
    )
    page.goto(address)
    until(page, "puppetcam.shown.length > 5")
    page.click("#start")
    until(page, "document.querySelector('#hint').textContent.includes('allow it')")
    page.close()


def test_the_page_asks_the_servers_of_the_environment(
    browser: Browser, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUPPETCAM_TURN", "turn:127.0.0.1:9?transport=tcp")
    monkeypatch.setenv("PUPPETCAM_TURN_USER", "me")
    monkeypatch.setenv("PUPPETCAM_TURN_PASSWORD", "secret")
    page = browser.new_page()
    page.add_init_script("""
        window.RTCPeerConnection = class extends RTCPeerConnection {
            constructor(configuration) {
                super(configuration);
                window.asked = this.getConfiguration().iceServers;
            }
        };
    """)
    page.goto(address)
    until(page, "window.asked")
    (asked,) = page.evaluate("asked")
    assert asked["username"] == "me"
    assert asked["urls"] == ["turn:127.0.0.1:9?transport=tcp"]
    page.close()


def test_a_server_that_goes_and_comes_is_found_again(browser: Browser, tmp_path: Path) -> None:
    with live_server(tmp_path) as address:
        page = browser.new_page()
        page.goto(address)
        until(page, "puppetcam.state === 'demo'")
    until(page, "puppetcam.state === 'broken'")
    assert "Trying again" in page.inner_text("#state")
    with live_server(tmp_path, port=int(address.rsplit(":", 1)[1])):
        until(page, "puppetcam.state === 'demo'")
    page.close()


def test_the_panel_makes_a_video(page: Page, address: str) -> None:
    page.goto(f"{address}/panel")
    page.get_by_role("button", name="Make the video").click(timeout=PATIENCE * 1000)
    page.locator("video").wait_for(timeout=PATIENCE * 1000)
    response = page.request.get(page.locator("video").get_attribute("src") or "")
    assert b"ftyp" in response.body()[:16]
    look(page, "panel")
