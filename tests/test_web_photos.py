"""Photos on the page in a real Chromium: chosen, added, refused, kept."""

from pathlib import Path

import httpx
from PIL import Image as Pillow
from playwright.sync_api import Page

from realtime.photo import portrait_path
from tests.livepage import chosen, look, until
from web.session import PHOTOS

TRANSFER = """async names => {
    const transfer = new DataTransfer();
    for (const name of names) {
        const blob = await (await fetch(`/portraits/${name}`)).blob();
        transfer.items.add(new File([blob], `${name}.jpg`, { type: "image/jpeg" }));
    }
    return transfer;
}"""
PASTE = "clipboardData => dispatchEvent(new ClipboardEvent('paste', { clipboardData }))"


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
