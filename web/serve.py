"""From choices to a server that runs: address, token, certificate."""

import asyncio
import secrets
import socket
import ssl
import tempfile
from contextlib import ExitStack
from pathlib import Path

import uvicorn

from realtime.errors import InputError
from realtime.photo import load_photo
from realtime.puppet import Puppet
from web.address import LOOPBACK, Address, is_loopback, listen, own_address
from web.gate import make_certificate
from web.server import create_app
from web.studio import Studio
from web.transport import ice_servers


def _check(studio: Studio, address: Address) -> None:
    """Raise InputError for what cannot be used, before anybody connects."""
    if address.certificate is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(address.certificate, address.key)
        except OSError as error:  # SSLError is one
            raise InputError(f"{address.certificate} with the key {address.key} is no certificate: {error}") from error
    if studio.sessions < 1:
        raise InputError(f"--sessions {studio.sessions} is too few: 1 or more is needed")
    ice_servers()
    studio.open_source(studio.source).close()
    with studio.pool.lend() as models:  # and the first visitor need not wait for them
        Puppet(models, load_photo(studio.target)).close()


class _Server(uvicorn.Server):
    """Says where the page is, once it is there."""

    def __init__(self, config: uvicorn.Config, url: str, studio: Studio) -> None:
        super().__init__(config)
        self._url, self._studio = url, studio

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(f"Puppetcam is at {self._url} and ends with Ctrl-C", flush=True)
        if self._studio.pool.batcher:
            print("All sessions share one set of models, which takes their frames in batches", flush=True)
        if camera := self._studio.virtual_camera:
            print(f"The first person's result goes to the virtual camera {camera.name}, too", flush=True)


def serve(studio: Studio, address: Address) -> None:
    """Serve the live page until Ctrl-C, and print its URL. Raises InputError for what cannot be used.

    The studio's models stay their owner's, who closes them after this whatever its end.
    """
    _check(studio, address)
    local = is_loopback(address.host)
    token = address.token or (None if local else secrets.token_urlsafe(16))
    with ExitStack() as stack:
        listening = stack.enter_context(listen(address.host, address.port))
        certificate, key = address.certificate, address.key
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="puppetcam-")))
        everywhere = address.host in ("0.0.0.0", "::")
        name = own_address(address.host) if everywhere else address.host
        if address.self_signed and certificate is None:
            keys = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="puppetcam-")))
            certificate, key = make_certificate(keys, name)
        elif everywhere:
            name = socket.gethostname()  # a certificate of one's own is of a name
        name = f"[{name}]" if ":" in name else name
        query = f"/?token={token}" if token else "/"
        url = f"http{'s' if address.secure else ''}://{name}:{listening.getsockname()[1]}{query}"

        async def run() -> None:  # Gradio makes its panel on the loop that it will run on
            app = create_app(studio, LOOPBACK if local else None, token, folder)
            config = uvicorn.Config(
                app, log_level="warning", ssl_certfile=certificate, ssl_keyfile=key, timeout_graceful_shutdown=3
            )
            await _Server(config, url, studio).serve([listening])

        asyncio.run(run())
