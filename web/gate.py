"""Who may talk to the server: the right host, origin and token, over TLS where it is not this machine alone."""

import datetime
import hmac
import ipaddress
import socket
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from starlette.datastructures import Headers, QueryParams
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "puppetcam"
# Nothing leaves the machine. Gradio's own scripts need more liberty within it.
STRICT = (
    "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
PANEL = (
    "default-src 'self' blob: data:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; connect-src 'self' ws: wss: blob: data:; frame-ancestors 'none'"
)


class Gate:
    """ASGI middleware that answers 403 or 401 to requests of other hosts, origins and people.

    hosts: the names the server may be called by, None for any; token: None where nobody needs one. It is taken from the
    page's query once, into a cookie, or from an Authorization header: Bearer TOKEN. public: paths that need none.
    """

    def __init__(self, app: ASGIApp, hosts: tuple[str, ...] | None, token: str | None, public: frozenset[str]) -> None:
        self._app, self._hosts, self._token, self._public = app, hosts, token, public

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal and scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif refusal:
            await JSONResponse({"message": refusal[1]}, refusal[0])(scope, receive, send)
        else:
            await self._app(scope, receive, self._with_headers(scope, send))

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._hosts is not None and urlsplit(f"//{host}").hostname not in self._hosts:
            return 403, f"this server is not {host!r}"
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return 403, f"pages of {origin} may not use this server"
        if self._token is not None and scope["path"] not in self._public and not self._knows(headers):
            return 401, "the token is missing or wrong: open the address that the server printed"
        return None

    def _knows(self, headers: Headers) -> bool:
        given = (
            headers.get("authorization", "").removeprefix("Bearer "),
            cookie_parser(headers.get("cookie", "")).get(COOKIE, ""),
        )
        return any(self._is_token(text) for text in given)

    def _is_token(self, text: str) -> bool:
        return self._token is not None and hmac.compare_digest(text.encode(), self._token.encode())

    def _with_headers(self, scope: Scope, send: Send) -> Send:
        panel = scope["path"].startswith("/panel")
        added = [
            (b"content-security-policy", (PANEL if panel else STRICT).encode()),
            (b"referrer-policy", b"no-referrer"),
            (b"x-content-type-options", b"nosniff"),
            (b"permissions-policy", b"camera=(self), microphone=(self)"),
        ]
        if not panel:
            added.append((b"cache-control", b"no-store"))
        token = QueryParams(scope.get("query_string", b"")).get("token", "")
        if scope["path"] == "/" and self._is_token(token):
            secure = "; Secure" if scope.get("scheme") in ("https", "wss") else ""
            added.append((b"set-cookie", f"{COOKIE}={token}; HttpOnly; SameSite=Strict; Path=/{secure}".encode()))

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *added]}
            await send(message)

        return send_with_headers


def make_certificate(folder: Path, host: str) -> tuple[Path, Path]:
    """A self-signed certificate for this machine, good for 30 days: the files of the certificate and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Puppetcam")])
    names: list[x509.GeneralName] = [x509.DNSName("localhost"), x509.DNSName(socket.gethostname())]
    for text in {"127.0.0.1", host}:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(text)))
        except ValueError:
            names.append(x509.DNSName(text))
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].touch(mode=0o600)
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths
