"""When simulated nodes ask, by which version, and what they take for success."""

import asyncio
import json
import socket
import ssl
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Final

import pytest

from tests.fakes import in_virtual_time
from tests.helpers import CITY, KEY, WELT
from wgkex_ops.model.keys import PublicKey
from wgkex_ops.simulation.nodes import Attempt, Node, make_nodes, storm
from wgkex_ops.simulation.post import Response

ENDPOINT: Final = {"Address": "gw04.example.net", "Port": "40011", "AllowedIPs": ["fe80::1"], "PublicKey": KEY}
ACCEPTED: Final = {
    1: Response(200, b'{"Message": "OK"}', 0.1),
    2: Response(200, json.dumps({"Endpoint": ENDPOINT}).encode(), 0.2),
}


def refusal(reason: str, status: int = 503) -> Response:
    return Response(status, json.dumps({"error": {"message": "why", "reason": reason}}).encode(), 0.3)


class Broker:
    """Responds as a test wants.

    Args:
        respond: from the version, and how often this key has asked by it before, to the response or an error.

    Attributes:
        asked: the clock's seconds, version, domain, key and client of each request.
    """

    def __init__(self, respond: Callable[[int, int], Response | Exception]) -> None:
        self._respond = respond
        self._times: Counter[tuple[object, int]] = Counter()
        self.asked: list[tuple[float, int, str, str, str]] = []

    async def __call__(self, api_version: int, domain: str, key: object, client: str) -> Response:
        self.asked.append((asyncio.get_running_loop().time(), api_version, domain, str(key), client))
        found = self._respond(api_version, self._times[key, api_version])
        self._times[key, api_version] += 1
        if isinstance(found, Exception):
            raise found
        return found

    def times(self) -> list[tuple[float, int]]:
        return [(when, version) for when, version, *_ in self.asked]


def ignore(node: Node, attempt: Attempt) -> None: ...


# --- the order of versions


@in_virtual_time
async def test_version_1_is_asked_only_when_version_2_fails_and_then_at_once() -> None:
    broker = Broker(lambda version, _: ACCEPTED[version])
    assert await Node(broker, WELT.name, ignore).ask()
    assert broker.times() == [(0, 2)]

    broker = Broker(lambda version, _: ACCEPTED[1] if version == 1 else refusal("no_worker"))
    assert await Node(broker, WELT.name, ignore).ask()
    assert broker.times() == [(0, 2), (0, 1)]


@in_virtual_time
async def test_a_node_asks_once_a_minute_until_it_is_accepted() -> None:
    broker = Broker(lambda version, before: ACCEPTED[version] if before == 2 else refusal("mqtt_disconnected"))
    attempts: list[Attempt] = []
    assert await Node(broker, WELT.name, lambda _, attempt: attempts.append(attempt)).connect(tries=None)
    assert broker.times() == [(0, 2), (0, 1), (60, 2), (60, 1), (120, 2)]
    assert [attempt.retry for attempt in attempts] == [False, False, True, True, True]
    assert [attempt.accepted for attempt in attempts] == [False] * 4 + [True]


@in_virtual_time
async def test_a_node_gives_up_after_its_last_try() -> None:
    broker = Broker(lambda version, before: ConnectionRefusedError())
    assert not await Node(broker, WELT.name, ignore).connect(tries=2, pause=7)
    assert broker.times() == [(0, 2), (0, 1), (7, 2), (7, 1)]


# --- many


@in_virtual_time
async def test_nodes_boot_all_over_the_window() -> None:
    broker = Broker(lambda version, _: ACCEPTED[version])
    nodes = make_nodes(1000, [WELT.name], broker, ignore, behind=3)
    await storm(nodes, within=39)
    assert Counter(int(when // 3.9) for when, _ in broker.times()).keys() == set(range(10))
    assert len({key for *_, key, _ in broker.asked}) == 1000
    assert all(PublicKey.parse(key) for *_, key, _ in broker.asked)


@in_virtual_time
async def test_a_storm_ends_when_each_node_has_succeeded_or_given_up() -> None:
    broker = Broker(lambda version, _: TimeoutError())
    await storm(make_nodes(10, [WELT.name], broker, ignore, behind=3), within=0, tries=3)
    assert [when for when, version in broker.times() if version == 2] == [0] * 10 + [60] * 10 + [120] * 10


@pytest.mark.parametrize(("behind", "sizes"), [(1, [1] * 8), (3, [3, 3, 2]), (50, [8])])
async def test_so_many_share_an_address(behind: int, sizes: list[int]) -> None:
    broker = Broker(lambda version, _: ACCEPTED[version])
    await storm(make_nodes(8, [WELT.name, CITY.name], broker, ignore, behind=behind), within=0)
    by_address = defaultdict(list)
    for *_, key, address in broker.asked:
        by_address[address].append(key)
    assert [len(keys) for keys in by_address.values()] == sizes
    assert Counter(domain for _, _, domain, *_ in broker.asked) == {WELT.name: 4, CITY.name: 4}


# --- what is success


async def judged(response: Response | Exception, version: int = 2) -> Attempt:
    return await Node(Broker(lambda _, __: response), WELT.name, ignore).submit(version)


async def test_a_gateway_is_named_by_version_2() -> None:
    assert await judged(ACCEPTED[2]) == Attempt(2, False, 200, 0.2, "", "gw04.example.net")
    assert await judged(ACCEPTED[1], 1) == Attempt(1, False, 200, 0.1)


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (refusal("rate_limited", 429), "rate_limited"),
        (refusal("no reason of ours\x1b[2J"), "http_503"),
        (refusal("x" * 1000), "http_503"),
        (Response(502, b"<html>", 0.1), "http_502"),
        (Response(301, b"", 0.1), "http_301"),
        (Response(201, ACCEPTED[2].body, 0.1), "http_201"),
        (ACCEPTED[1], "unusable_response"),
        (Response(200, b"<html>", 0.1), "unusable_response"),
    ],
)
async def test_a_refusal_has_a_reason(response: Response, reason: str) -> None:
    attempt = await judged(response)
    assert (attempt.reason, attempt.status, attempt.accepted) == (reason, response.status, False)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TimeoutError(), "timeout"),
        (ConnectionRefusedError(), "connection_refused"),
        (ConnectionResetError(), "connection_lost"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "no_address"),
        (ssl.SSLCertVerificationError(), "tls"),
        (OSError(101, "Network is unreachable"), "enetunreach"),
        (OSError("Multiple exceptions: …"), "unreachable"),
        (ValueError("what came is not an HTTP response"), "not_http"),
    ],
)
async def test_no_response_has_a_reason(error: Exception, reason: str) -> None:
    assert await judged(error) == Attempt(2, reason=reason)
