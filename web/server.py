"""The live server: the page, its photos, and the offers and answers of its sessions."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path

from aiortc import RTCSessionDescription
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.background import BackgroundTask

from realtime.errors import InputError
from realtime.motion import motion_names
from realtime.photo import portrait_names, portrait_path
from web.gate import Gate
from web.panel import build_panel, mount_panel
from web.session import Session
from web.studio import Studio
from web.transport import ice_servers, prepare_aiortc
from web.upload import PHOTO_BYTES, decode_photo, read_body

FOLDER = Path(__file__).parent
SCRIPTS = [path.name for path in FOLDER.glob("*.js")]
PAGE = {"/": "page.html", "/favicon.ico": "icon.svg", **{f"/{name}": name for name in ("page.css", *SCRIPTS)}}
OFFER_BYTES = 100_000

_log = logging.getLogger(__name__)


def _refuse(status: int, message: str) -> JSONResponse:
    return JSONResponse({"message": message}, status)


class Stage:
    """The sessions there are. Used on the event loop only."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        self.sessions: dict[str, Session] = {}

    async def offer(self, request: Request) -> Response:
        try:
            body = await read_body(request, OFFER_BYTES)
        except InputError as error:
            return _refuse(400, str(error))
        try:
            message = json.loads(body)
            offer, strip = RTCSessionDescription(message["sdp"], message["type"]), message.get("strip") is True
        except (ValueError, KeyError, TypeError, AttributeError):
            return _refuse(400, "an offer must be JSON with its sdp and type")
        if len(self.sessions) >= self.studio.sessions:
            return _refuse(503, f"all {self.studio.sessions} places are taken: try again when somebody has left")
        session = Session(self.studio, self._forget)
        self.sessions[session.id] = session
        try:
            answer = await session.open(offer, strip)
        except InputError as error:
            return _refuse(400, str(error))
        except Exception as error:  # an engine's: no memory for another set of models, say
            _log.exception("a session could not begin")
            return _refuse(500, f"the server failed: {error}")
        return JSONResponse({"sdp": answer.sdp, "type": answer.type, "session": session.id})

    def _forget(self, session: Session) -> None:
        self.sessions.pop(session.id, None)

    async def upload(self, request: Request, session: str, consent: str = "") -> Response:
        if session not in self.sessions:
            return _refuse(404, "the session is over: connect again")
        if consent != "yes":
            return _refuse(403, "a photo needs the word that the person in it agreed")
        try:
            photo = await asyncio.to_thread(decode_photo, await read_body(request, PHOTO_BYTES))
        except InputError as error:
            return _refuse(400, str(error))
        if session not in self.sessions:
            return _refuse(404, "the session is over: connect again")
        return JSONResponse({"id": self.sessions[session].add_photo(photo)})

    async def recording(self, name: str, session: str) -> Response:
        found = self.sessions[session].recording(name) if session in self.sessions else None
        if found is None:
            return _refuse(404, "there is no such recording")
        return FileResponse(found, filename="puppetcam.mp4", background=BackgroundTask(found.unlink, missing_ok=True))

    async def leave(self, session: str) -> Response:
        if session in self.sessions:
            self.sessions[session].shut()
        return Response(status_code=204)

    async def close(self) -> None:
        await asyncio.gather(*(session.close() for session in list(self.sessions.values())))


def create_app(studio: Studio, hosts: tuple[str, ...] | None, token: str | None, folder: Path) -> FastAPI:
    """The server as an ASGI application. hosts, token: see Gate; folder: for the panel's files."""
    prepare_aiortc()
    stage = Stage(studio)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await stage.close()

    app = FastAPI(title="Puppetcam", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.state.stage = stage
    for path, name in PAGE.items():
        app.add_api_route(path, lambda name=name: FileResponse(FOLDER / name), methods=["GET"], response_model=None)
    app.post("/offer", response_model=None)(stage.offer)
    app.post("/photos", response_model=None)(stage.upload)
    app.post("/leave", response_model=None)(stage.leave)
    app.get("/recordings/{name}", response_model=None)(stage.recording)

    @app.get("/portraits/{name}", response_model=None)
    async def portrait(name: str) -> Response:
        return FileResponse(portrait_path(name)) if name in portrait_names() else _refuse(404, "no such portrait")

    @app.get("/about", response_model=None)
    async def about() -> Response:
        return JSONResponse(
            {
                "portraits": portrait_names(),
                "motions": motion_names(),
                "source": studio.source,
                "target": studio.target if studio.target in portrait_names() else "",
                "iceServers": ice_servers(),
            }
        )

    mount_panel(app, build_panel(studio, folder, lambda: len(stage.sessions)), folder)
    app.add_middleware(Gate, hosts=hosts, token=token, public=frozenset(PAGE))
    return app
