"""Where the server listens, and that it is reached over TLS with what it prints."""

import signal
import ssl
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

import run
from realtime.errors import InputError
from tests.webpeer import live_server
from web.address import Address, listen, own_address
from web.gate import make_certificate

ROOT = Path(run.__file__).parent


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::"])
def test_other_addresses_need_tls(host: str) -> None:
    with pytest.raises(InputError, match="--self-signed"):
        Address(host)
    assert Address(host, self_signed=True).secure


def test_a_certificate_needs_its_key(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="belong together"):
        Address(certificate=tmp_path / "certificate.pem")
    with pytest.raises(InputError, match="does not exist"):
        Address(certificate=tmp_path / "certificate.pem", key=tmp_path / "key.pem")


@pytest.mark.parametrize("token", ["", "two words", "a+b", "a;b"])
def test_a_token_that_no_address_carries_is_refused(token: str) -> None:
    with pytest.raises(InputError, match="token"):
        Address(token=token)
    assert Address(token="a-b.c_d~1").token


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_out_of_range_is_refused(port: int) -> None:
    with pytest.raises(InputError, match="out of range"):
        Address(port=port)


def test_a_port_in_use_is_named() -> None:
    with listen("127.0.0.1", 0) as taken, pytest.raises(InputError, match="choose another --port"):
        listen("127.0.0.1", taken.getsockname()[1])


def test_a_certificate_made_here_can_be_served_and_its_key_is_kept(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, "192.168.1.5")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    assert key.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host", "0.0.0.0"], "--self-signed"),
        (["--source", "motion:nothing"], "motion 'nothing' is unknown"),
        (["--sessions", "0"], "--sessions 0"),
        (["--tls-cert", "a.pem"], "belong together"),
        (["--tls-cert", "run.py", "--tls-key", "run.py"], "run.py with the key run.py is no certificate"),
    ],
)
def test_what_cannot_be_served_is_one_sentence_and_code_2(options: list[str], message: str) -> None:
    command = [sys.executable, "run.py", "live", "--port", "0", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_ends_the_server() -> None:
    command = [sys.executable, "run.py", "live", "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stderr is not None
        url = server.stdout.readline().split()[3]
        assert httpx.get(url, trust_env=False).status_code == 200
        server.send_signal(signal.SIGINT)
        assert server.wait(30) == 130
        assert "Traceback" not in server.stderr.read()


def test_every_address_is_served_under_one_that_a_phone_can_open() -> None:
    command = [sys.executable, "run.py", "live", "--port", "0", "--host", "0.0.0.0", "--self-signed"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = server.stdout.readline().split()[3]
        assert urlsplit(url).hostname == own_address("0.0.0.0")
        assert httpx.get(url, trust_env=False, verify=False, follow_redirects=True).status_code == 200
        server.send_signal(signal.SIGINT)
        assert server.wait(30) == 130


def test_the_certificate_serves_https(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, "127.0.0.1")
    with live_server(tmp_path, certificate=(certificate, key)) as address:
        assert address.startswith("https://")
        trusting = ssl.create_default_context(cafile=str(certificate))
        assert httpx.get(address, verify=trusting, trust_env=False).status_code == 200
