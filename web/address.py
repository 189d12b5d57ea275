"""Where the server listens, and what that takes. Imports little, so that what is wrong is said at once."""

import re
import socket
from dataclasses import dataclass
from pathlib import Path

from realtime.errors import InputError

LOOPBACK = ("localhost", "127.0.0.1", "::1")


def is_loopback(host: str) -> bool:
    return host in LOOPBACK


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
        if self.token is not None and not re.fullmatch(r"[\w.~-]+", self.token, re.ASCII):
            raise InputError(
                "the token is empty, or has characters that an address or a cookie cannot carry: letters, digits and "
                "- . _ ~ are good; without --token one is made"
            )
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


def own_address(host: str) -> str:
    """This machine's address on the network that it would leave by, of the family of `host`, an address that stands for
    all of them; its name where it is on none. Nothing is sent for it: a phone often cannot look the name up."""
    family, far = (socket.AF_INET6, "2001:db8::1") if ":" in host else (socket.AF_INET, "192.0.2.1")
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((far, 9))
        except OSError:
            return socket.gethostname()
        return str(probe.getsockname()[0])
