"""From the command line's choices to a server that runs: address, token, certificate."""

import asyncio
import secrets
import socket
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from realtime.errors import InputError
from realtime.photo import load_photo
from realtime.puppet import Puppet
from web.gate import LOOPBACK, is_loopback, make_certificate
from web.server import create_app
from web.studio import Studio


@dataclass(frozen=True)
class Address:
    """Where the server listens, and who may come. Raises InputError for what would be unsafe or cannot be."""

    host: str = "127.0.0.1"
    port: int = 7860
    token: str | None = None
    certificate: Path | None = None
    key: Path | None = None
    self_signed: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise InputError(f"port {self.port} is out of range: a number from 0 to 65535 is needed")
        if (self.certificate is None) != (self.key is None):
            raise InputError("--tls-cert and --tls-key belong together: give both or neither")
        for path in (self.certificate, self.key):
            if path is not None and not path.is_file():
                raise InputError(f"{path} does not exist: a PEM file is needed")
        if not (is_loopback(self.host) or self.secure):
            raise InputError(
                f"listening on {self.host} needs TLS, because browsers give the camera only to secure pages: "
                "add --self-signed, or --tls-cert and --tls-key"
            )

    @property
    def secure(self) -> bool:
        return self.self_signed or self.certificate is not None


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises InputError when the address cannot be had."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        raise InputError(f"the server cannot listen on {host}:{port}: {error}: choose another --port") from error


def _check(studio: Studio) -> None:
    """Raise InputError for a target or a source that cannot be used, before anybody connects."""
    if studio.sessions < 1:
        raise InputError(f"--sessions {studio.sessions} is too few: 1 or more is needed")
    studio.open_source(studio.source).close()
    models = studio.pool.take()  # and the first visitor need not wait for them
    try:
        Puppet(models, load_photo(studio.target)).close()
    finally:
        studio.pool.give(models)


class _Server(uvicorn.Server):
    """Says where the page is, once it is there."""

    def __init__(self, config: uvicorn.Config, url: str) -> None:
        super().__init__(config)
        self._url = url

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(f"Puppetcam is at {self._url} and ends with Ctrl-C", flush=True)


def serve(studio: Studio, address: Address) -> None:
    """Serve the live page until Ctrl-C, and print its URL. Raises InputError for what cannot be used."""
    _check(studio)
    local = is_loopback(address.host)
    token = address.token or (None if local else secrets.token_urlsafe(16))
    with ExitStack() as stack:
        listening = stack.enter_context(listen(address.host, address.port))
        certificate, key = address.certificate, address.key
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="puppetcam-")))
        if address.self_signed and certificate is None:
            keys = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="puppetcam-")))
            certificate, key = make_certificate(keys, address.host)
        name = socket.gethostname() if address.host in ("0.0.0.0", "::") else address.host
        name = f"[{name}]" if ":" in name else name
        query = f"/?token={token}" if token else "/"
        url = f"http{'s' if address.secure else ''}://{name}:{listening.getsockname()[1]}{query}"

        async def run() -> None:  # Gradio makes its panel on the loop that it will run on
            app = create_app(studio, LOOPBACK if local else None, token, folder)
            config = uvicorn.Config(
                app, log_level="warning", ssl_certfile=certificate, ssl_keyfile=key, timeout_graceful_shutdown=3
            )
            await _Server(config, url).serve([listening])

        # Models are closed last: OpenVINO takes the stack that signals are handled on with it, and uvicorn raises the
        # signal that ended it once more.
        stack.callback(studio.pool.close)
        asyncio.run(run())
