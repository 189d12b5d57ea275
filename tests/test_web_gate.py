"""Who gets in: places, offers, origins, tokens, paths, and the way through STUN and TURN servers."""

import asyncio
import json
import threading
from pathlib import Path

import httpx
import pytest
from aioice import stun

from realtime.errors import InputError
from tests.webpeer import live_server, peer
from web.transport import configuration


def test_one_more_than_there_is_room_for_gets_a_word(address: str) -> None:
    async def scene() -> None:
        async with peer(address) as first, peer(address) as second, peer(address) as third:
            assert (await first.connect()).status_code == 200
            assert (await second.connect()).status_code == 200
            refused = await third.connect()
            assert refused.status_code == 503
            assert "all 2 places are taken" in refused.json()["message"]
            for made in (first, second):  # both get their own results
                await made.until(lambda made=made: len(made.frames) > 10)

    asyncio.run(scene())


def test_who_vanishes_is_forgotten_and_freed(tmp_path: Path) -> None:
    def at_work() -> set[str]:
        names = {thread.name for thread in threading.enumerate()}
        return names & {"models", "capture", "player motion:demo"}

    async def scene(address: str) -> None:
        async with peer(address) as made:
            await made.connect()
            await made.until(lambda: len(made.frames) > 5)
            assert len(at_work()) == 3
            await made.vanish()  # its connection stays open
            await made.until(lambda: not at_work(), 8)
            async with peer(address) as again:
                assert (await again.connect()).status_code == 200

    with live_server(tmp_path, sessions=1) as address:
        asyncio.run(scene(address))
    assert not at_work()


@pytest.mark.parametrize(
    "offer",
    [
        "",
        "{}",
        "[1]",
        json.dumps({"sdp": "", "type": "offer"}),
        json.dumps({"sdp": "v=0\r\nnonsense", "type": "offer"}),
        json.dumps({"sdp": "v=0", "type": "answer"}),
        json.dumps({"sdp": 7, "type": "offer"}),
        json.dumps({"sdp": "x" * 200_000, "type": "offer"}),
    ],
)
def test_a_bad_offer_is_refused_and_takes_no_place(address: str, offer: str) -> None:
    for _ in range(3):
        response = httpx.post(f"{address}/offer", content=offer, trust_env=False)
        assert response.status_code == 400
        assert ("too large" in response.json()["message"]) == (len(offer) > 100_000)


def test_other_origins_and_hosts_are_refused(address: str) -> None:
    for path in ("/offer", "/photos", "/leave"):
        foreign = httpx.post(f"{address}{path}", headers={"origin": "https://evil.example"}, trust_env=False)
        assert foreign.status_code == 403
    rebound = httpx.get(address, headers={"host": "evil.example"}, trust_env=False)
    assert rebound.status_code == 403
    same = httpx.post(f"{address}/offer", headers={"origin": address}, content="{}", trust_env=False)
    assert same.status_code == 400


def test_a_token_is_asked_for_everywhere_but_at_the_page(tmp_path: Path) -> None:
    with live_server(tmp_path, token="secret") as address, httpx.Client(base_url=address, trust_env=False) as client:
        assert client.get("/").status_code == 200
        assert client.get("/?token=wrong").headers.get("set-cookie") is None
        for path in ("/about", "/portraits/hopper", "/recordings/x", "/panel/"):
            assert client.get(path).status_code == 401, path
        assert client.post("/offer", json={}).status_code == 401
        assert client.post("/photos").status_code == 401
        assert client.post("/offer", headers={"authorization": "Bearer secret!"}, json={}).status_code == 401
        assert client.post("/offer", headers={"authorization": "Bearer secret"}, json={}).status_code == 400
        cookie = client.get("/?token=secret").headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert client.get("/about").status_code == 200
    with live_server(tmp_path, token="secret") as address, httpx.Client(base_url=address, trust_env=False) as client:
        others = 'other={"a":1}; a/b=1; puppetcam=secret'  # of other servers on this host, whatever they look like
        assert client.get("/about", headers={"cookie": others}).status_code == 200


@pytest.mark.parametrize(
    "path", ["/portraits/..%2fhopper", "/portraits/../../run.py", "/page.py", "/recordings/..%2fx"]
)
def test_no_path_reaches_the_file_system(address: str, path: str) -> None:
    assert httpx.get(f"{address}{path}", trust_env=False, params={"session": "x"}).status_code == 404


class _Stun(asyncio.DatagramProtocol):
    """A STUN server (RFC 8489): tells who asks where they are."""

    def __init__(self) -> None:
        self.asked = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        asked = stun.parse_message(data)
        answer = stun.Message(asked.message_method, stun.Class.RESPONSE, asked.transaction_id)
        answer.attributes["XOR-MAPPED-ADDRESS"] = ("192.0.2.7", address[1])
        self.asked += 1
        self.transport.sendto(bytes(answer), address)  # type: ignore[attr-defined]


def test_stun_and_turn_servers_are_the_environments(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        event_loop = asyncio.get_running_loop()
        transport, server = await event_loop.create_datagram_endpoint(_Stun, ("127.0.0.1", 0))
        where = f"stun:127.0.0.1:{transport.get_extra_info('sockname')[1]}"
        monkeypatch.setenv("PUPPETCAM_STUN", where)
        async with peer(address) as made:
            answer = (await made.connect()).json()["sdp"]
            assert server.asked > 0
            assert "192.0.2.7" in answer  # what the server was told, it tells the page
            await made.until(lambda: len(made.frames) > 2)
        transport.close()
        monkeypatch.setenv("PUPPETCAM_TURN", "turn:127.0.0.1:3478")
        with pytest.raises(InputError, match="PUPPETCAM_TURN_USER"):
            configuration()
        monkeypatch.setenv("PUPPETCAM_TURN_USER", "me")
        monkeypatch.setenv("PUPPETCAM_TURN_PASSWORD", "secret")
        turn = {"urls": "turn:127.0.0.1:3478", "username": "me", "credential": "secret"}
        about = await event_loop.run_in_executor(None, lambda: httpx.get(f"{address}/about", trust_env=False))
        assert about.json()["iceServers"] == [{"urls": where}, turn]
        assert vars(configuration().iceServers[1]).items() >= turn.items()

    asyncio.run(scene())
