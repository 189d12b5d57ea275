"""The page in a real Chromium, whose camera plays a clip of a face that talks, then of none."""

from pathlib import Path
from xml.etree import ElementTree

import av
import numpy as np
import pytest
from PIL import Image as Pillow
from playwright.sync_api import Browser, Page

from tests.livepage import PATIENCE, chosen, look, shown, start, until
from tests.webpeer import live_server

RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"


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
