"""How the canary gets a gateway: the broker's choice, or one that is named."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from itertools import count
from typing import Final

import pytest
from aiohttp import web

from tests.fakes import FakeSession, run_in_virtual_time
from tests.helpers import CITY, KEY, WELT, key, running
from wgkex_ops.bus.messages import Endpoint, data_payload, worker_data_topic
from wgkex_ops.bus.session import Message
from wgkex_ops.errors import RoundFailedError
from wgkex_ops.model.domains import Domain
from wgkex_ops.probe.published import PublishedEndpoints, subscriptions
from wgkex_ops.probe.requests import ChosenGateway, GivenEndpoint

ENDPOINT: Final = Endpoint("gw04.example.net", 40011, str(key(4)), "fe80::4")
OTHER: Final = Endpoint("gw04.example.net", 40012, str(key(5)), "fe80::5")


def published(payload: bytes, domain: Domain = WELT, worker: str = "gw04") -> Message:
    return Message(worker_data_topic(worker, domain.name), payload, retained=True)


@contextlib.asynccontextmanager
async def broker(name_gateway: Callable[[str], str], most: int = 1000) -> AsyncIterator[tuple[str, list[str]]]:
    """A broker that names gateways, so many times for each key; its URL, and the keys that it was asked with."""
    asked: list[str] = []

    async def respond(request: web.BaseRequest) -> web.Response:
        public_key = json.loads(await request.read())["public_key"]
        asked.append(public_key)
        if asked.count(public_key) > most:
            return web.Response(status=429)
        endpoint = {"Address": name_gateway(public_key), "Port": "1", "AllowedIPs": ["fe80::1"], "PublicKey": KEY}
        return web.json_response({"Endpoint": endpoint})

    runner = web.ServerRunner(web.Server(respond))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", asked
    finally:
        await runner.cleanup()


class Fleet:
    """Names gateways as brokers do: another one to a key that asks again, and then the one that was named first."""

    def __init__(self, *gateways: str) -> None:
        self.gateways = list(gateways)
        self._visits: dict[str, list[str]] = {}

    def __call__(self, public_key: str) -> str:
        visits = self._visits.setdefault(public_key, [])
        new = [gateway for gateway in self.gateways if gateway not in visits]
        name = new[0] if new else visits[0]
        self._visits[public_key] = [*(each for each in visits if each != name), name]
        return name


class Rounds:
    """Goes round in a domain, each time with a new key, and notes which gateway it gets and how often it has to ask."""

    def __init__(self, url: str, asked: list[str]) -> None:
        self._request = ChosenGateway(url, goes_around=True)
        self._asked = asked
        self._numbers = count()
        self.asks: list[int] = []

    async def go(self, rounds: int, domain: Domain = WELT) -> str:
        names = []
        for _ in range(rounds):
            before = len(self._asked)
            names.append((await self._request(domain, key(next(self._numbers)))).name)
            self.asks.append(len(self._asked) - before)
        return "".join(names)


async def test_the_rounds_go_around_all_gateways_though_the_broker_prefers_one() -> None:
    async with broker(Fleet("a", "b", "c")) as (url, asked):
        rounds = Rounds(url, asked)
        assert await rounds.go(7) == "abcabca"
    # First it finds out which there are; then it asks until it is sent where it wants to go.
    assert rounds.asks == [4, 2, 3, 1, 2, 3, 1]


async def test_each_domain_goes_around_on_its_own() -> None:
    async with broker(Fleet("a", "b")) as (url, asked):
        rounds = Rounds(url, asked)
        assert [await rounds.go(1, domain) for domain in [WELT, CITY] * 2] == ["a", "a", "b", "b"]


async def test_a_single_round_asks_once() -> None:
    async with broker(Fleet("a", "b")) as (url, asked):
        request = ChosenGateway(url, goes_around=False)
        assert [(await request(WELT, key(number))).name for number in range(3)] == ["a", "a", "a"]
        assert len(asked) == 3


async def test_the_only_gateway_is_tried_again_and_again() -> None:
    async with broker(lambda _: "a") as (url, asked):
        rounds = Rounds(url, asked)
        assert await rounds.go(3) == "aaa"
    assert rounds.asks == [2, 1, 1]


async def test_a_gateway_that_is_named_no_more_is_left_out() -> None:
    fleet = Fleet("a", "b", "c")
    async with broker(fleet) as (url, asked):
        rounds = Rounds(url, asked)
        assert await rounds.go(3) == "abc"
        fleet.gateways = ["b", "c"]
        assert await rounds.go(4) == "bcbc"
    # It looks for the first one once.
    assert rounds.asks[3:] == [3, 2, 1, 2]


async def test_a_new_gateway_is_taken_as_soon_as_it_is_named_and_looked_for_now_and_then() -> None:
    fleet = Fleet("a", "b")
    async with broker(fleet) as (url, asked):
        rounds = Rounds(url, asked)
        assert await rounds.go(2) == "ab"
        fleet.gateways = ["c", "a", "b"]
        assert await rounds.go(2) == "ca"
        fleet.gateways.append("d")
        assert "d" not in await rounds.go(56)
        assert await rounds.go(1) == "d"


async def test_a_broker_that_is_asked_too_often_is_left_in_peace() -> None:
    fleet = Fleet("a", "b", "c")
    async with broker(fleet, most=2) as (url, asked):
        rounds = Rounds(url, asked)
        assert await rounds.go(4) == "abab"
    assert max(rounds.asks) == 3


async def test_a_broker_that_names_ever_more_gateways_is_asked_a_bounded_number_of_times() -> None:
    numbers = count()
    async with broker(lambda _: f"gw{next(numbers)}") as (url, asked):
        rounds = Rounds(url, asked)
        await rounds.go(62)
    assert (rounds.asks[0], rounds.asks[60], max(rounds.asks)) == (16, 16, 16)
    assert set(rounds.asks) == {1, 16}


async def test_what_the_operator_has_given_is_taken() -> None:
    assert await GivenEndpoint(ENDPOINT).find(WELT) == ENDPOINT


def test_only_the_data_of_this_worker_is_subscribed_to() -> None:
    assert subscriptions("gw04", [WELT, CITY]) == [
        "wireguard-worker/gw04/ffmuc_welt/data",
        "wireguard-worker/gw04/ffmuc_muc_cty/data",
    ]


def test_the_latest_endpoint_of_each_domain_is_taken() -> None:
    async def run() -> None:
        session = FakeSession()
        endpoints = PublishedEndpoints(session, "gw04")
        async with running(endpoints.run()):
            # It may come while somebody waits for it.
            waiting = asyncio.create_task(endpoints.find(WELT))
            await asyncio.sleep(1)
            session.deliver(published(data_payload(ENDPOINT)))
            assert await waiting == ENDPOINT
            session.deliver(published(data_payload(OTHER)))
            session.deliver(published(data_payload(ENDPOINT), CITY))
            assert await endpoints.find(CITY) == ENDPOINT
            assert await endpoints.find(WELT) == OTHER

    run_in_virtual_time(run())


def test_every_message_is_acknowledged_and_garbage_harms_nothing() -> None:
    async def run() -> None:
        session = FakeSession()
        endpoints = PublishedEndpoints(session, "gw04")
        acknowledged = []
        async with running(endpoints.run()):
            for payload in (b"{", b"[]", b'{"Port": 1}', data_payload(ENDPOINT)):
                message = published(payload)
                message.on_acknowledge = lambda payload=payload: acknowledged.append(payload)
                session.deliver(message)
            assert await endpoints.find(WELT) == ENDPOINT
        assert len(acknowledged) == 4

    run_in_virtual_time(run())


@pytest.mark.parametrize("withdrawn", [False, True])
def test_a_worker_that_has_published_nothing_is_a_failure_in_words(withdrawn: bool) -> None:
    async def run() -> None:
        session = FakeSession()
        endpoints = PublishedEndpoints(session, "gw04")
        async with running(endpoints.run()):
            if withdrawn:
                session.deliver(published(data_payload(ENDPOINT)))
                assert await endpoints.find(WELT) == ENDPOINT
                session.deliver(published(b""))
                await asyncio.sleep(0.1)
            with pytest.raises(RoundFailedError) as error:
                await endpoints.find(WELT)
        assert str(error.value) == (
            "the worker gw04 has published no endpoint: it does not run, its interfaces are missing, or the MQTT "
            "server lets this user not read wireguard-worker/gw04/ffmuc_welt/data"
        )

    run_in_virtual_time(run())


def test_without_an_mqtt_server_the_failure_says_so() -> None:
    async def run() -> None:
        session = FakeSession()
        session.disconnect()
        endpoints = PublishedEndpoints(session, "gw04")
        async with running(endpoints.run()):
            with pytest.raises(RoundFailedError, match=r"^there is no connection with the MQTT server"):
                await endpoints.find(WELT)

    run_in_virtual_time(run())
