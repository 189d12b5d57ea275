"""What a visitor asks of the live server: photos, settings, recordings, and nonsense."""

import asyncio
import io
from pathlib import Path

import av
from PIL import Image as Pillow

from realtime.landmarks import Array
from realtime.photo import portrait_path
from tests.facemesh import FaceMeshModels
from tests.webpeer import Camera, Image, live_server, peer


def test_photos_and_settings_are_set_live(address: str, talking_face: list[Image]) -> None:
    async def scene() -> None:
        async with peer(address) as made:
            await made.follow(Camera(talking_face))
            shape = made.pictures()[-1].shape
            assert (await made.ask(type="photo", id="collins"))["type"] == "done"
            await made.until(lambda: made.pictures()[-1].shape != shape, 10)
            assert (await made.ask(type="calibrate"))["type"] == "done"
            chosen = {"mouth": 1.5, "smoothing": 0.5, "mirror": True, "overlay": True, "reference": "best"}
            assert (await made.ask(type="settings", **chosen))["type"] == "done"
            await made.until(
                lambda: any(said["type"] == "overlay" and len(said["points"]) == 56 for said in made.messages)
            )
            assert (await made.ask(type="size", size=256))["type"] == "done"
            await made.until(lambda: max(made.frames[-1].width, made.frames[-1].height) == 256)

    asyncio.run(scene())


def test_an_own_photo_needs_consent_and_a_face(address: str) -> None:
    async def scene() -> None:
        async with peer(address) as made:
            await made.connect()
            own = portrait_path("collins").read_bytes()
            assert (await made.upload(own)).status_code == 403
            assert (await made.upload(b"no picture", consent="yes")).status_code == 400
            name = (await made.upload(own, consent="yes")).json()["id"]
            assert (await made.ask(type="photo", id=name))["type"] == "done"
            blank = io.BytesIO()
            Pillow.new("RGB", (300, 300), "grey").save(blank, "PNG")
            faceless = (await made.upload(blank.getvalue(), consent="yes")).json()["id"]
            answer = await made.ask(type="photo", id=faceless)
            assert answer["type"] == "error"
            assert "no face" in answer["message"]
            before = len(made.frames)
            await made.until(lambda: len(made.frames) > before + 5)  # the stream goes on with the photo before

    asyncio.run(scene())


def test_uploads_are_bounded_in_bytes_and_pixels(address: str) -> None:
    async def scene() -> None:
        async with peer(address) as made:
            await made.connect()
            large = await made.upload(bytes(21 << 20), consent="yes")
            assert large.status_code == 400
            assert "too large" in large.json()["message"]
            bomb = io.BytesIO()
            Pillow.new("1", (9000, 9000)).save(bomb, "PNG")
            answer = await made.upload(bomb.getvalue(), consent="yes")
            assert answer.status_code == 400
            assert "81 megapixels" in answer.json()["message"]

    asyncio.run(scene())


def test_a_recording_is_an_mp4_that_says_it_is_synthetic(
    address: str, talking_face: list[Image], tmp_path: Path
) -> None:
    async def scene() -> None:
        async with peer(address) as made:
            await made.follow(Camera(talking_face))
            assert (await made.ask(type="record", on=True))["type"] == "done"
            assert (await made.ask(type="record", on=True))["type"] == "error"
            before = len(made.frames)
            await made.until(lambda: len(made.frames) > before + 20)
            name = (await made.ask(type="record", on=False))["recording"]
            response = await made.fetch(f"/recordings/{name}")
            assert response.status_code == 200
            film = tmp_path / "film.mp4"
            film.write_bytes(response.content)
            assert (await made.fetch(f"/recordings/{name}")).status_code == 404  # it was removed
        with av.open(film) as container:
            assert "synthetic" in container.metadata["comment"]
            assert sum(1 for _ in container.decode(video=0)) > 10

    asyncio.run(scene())


def test_an_engine_that_fails_is_told_of_and_the_next_wish_is_met(tmp_path: Path) -> None:
    class Full(FaceMeshModels):
        """Has memory for one photo's features."""

        photos = 0

        def encode_target(self, crop: Image, heatmaps: Array) -> Image:
            self.photos += 1
            if self.photos == 2:
                raise RuntimeError("the card is out of memory")
            return super().encode_target(crop, heatmaps)

    async def scene(address: str) -> None:
        async with peer(address) as made:
            await made.connect()
            answer = await made.ask(type="photo", id="collins")
            assert answer["type"] == "error"
            assert "the card is out of memory" in answer["message"]
            assert (await made.ask(type="photo", id="collins"))["type"] == "done"

    with live_server(tmp_path, load=Full) as address:
        asyncio.run(scene(address))


def test_messages_that_make_no_sense_are_answered(address: str) -> None:
    async def scene() -> None:
        async with peer(address) as made:
            await made.connect()
            for message in (
                {"type": "dance"},
                {"type": "source", "name": "camera:0"},
                {"type": "source", "name": "/etc/passwd"},
                {"type": "photo", "id": "../hopper"},
                {"type": "photo"},
                {"type": "size", "size": 100_000},
                {"type": "settings", "mouth": "wide"},
                {"type": "settings", "mouth": 99},
                {"type": "record", "on": False},
            ):
                answer = await made.ask(**message)
                assert answer["type"] == "error", message
                assert answer["message"]
            assert (await made.ask(type="ping"))["type"] == "done"

    asyncio.run(scene())
