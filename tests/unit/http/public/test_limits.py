"""Limits: what they let through, whom they hold back, what that costs, and what is counted."""

import json
from collections.abc import Callable, Hashable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers import WELT, Clock, key, request, send
from tests.unit.http.public.application import Broker, assert_error, submission
from wgkex_ops.config.limits import Bucket, LimitsConfig
from wgkex_ops.http.clients import SUSPICIOUS_NODES, network_of
from wgkex_ops.http.public.app import PATH_V1, PATH_V2
from wgkex_ops.http.public.limits import CAPACITY, Limits, RateLimitedError, TokenBuckets

HONEST = network_of("192.0.2.1")
ABUSER = network_of("198.51.100.1")


def refused(take: Callable[[], None]) -> str:
    """The limit that refuses something; empty if none does."""
    try:
        take()
    except RateLimitedError as error:
        return error.limit
    return ""


def small(**buckets: tuple[int, float]) -> LimitsConfig:
    """Limits of which some are small: burst, and tokens a minute."""
    limits = {name: {"burst": burst, "per_minute": rate} for name, (burst, rate) in buckets.items()}
    return LimitsConfig.model_validate(limits)


# --- buckets


def test_bucket_lets_a_burst_through_and_then_its_rate() -> None:
    clock = Clock()
    buckets = TokenBuckets(Bucket(burst=3, per_minute=6), clock)
    assert [buckets.take("a") for _ in range(5)] == [True, True, True, False, False]
    assert buckets.take("b")
    clock.now += 9.9
    assert not buckets.take("a")
    clock.now += 0.2
    assert [buckets.take("a") for _ in range(2)] == [True, False]
    clock.now += 1000
    assert [buckets.take("a") for _ in range(4)] == [True, True, True, False]


@given(
    st.integers(1, 20),
    st.floats(1, 600),
    st.lists(st.tuples(st.floats(0, 30), st.sampled_from("ab")), max_size=200),
)
def test_no_owner_gets_more_than_a_full_bucket_and_what_has_dripped(
    burst: int, rate: float, requests: list[tuple[float, str]]
) -> None:
    clock = Clock()
    buckets = TokenBuckets(Bucket(burst=burst, per_minute=rate), clock)
    began = clock.now
    allowed: dict[Hashable, int] = {}
    for pause, owner in requests:
        clock.now += pause
        if buckets.take(owner):
            allowed[owner] = allowed.get(owner, 0) + 1
        assert allowed.get(owner, 0) <= burst + (clock.now - began) * rate / 60 + 1e-6


def test_memory_is_bounded_and_who_has_most_addresses_loses_its_own() -> None:
    clock = Clock()
    buckets = TokenBuckets(Bucket(burst=1, per_minute=1), clock)
    for number in range(CAPACITY + 10):
        assert buckets.take(number)
        if not number % 100:
            # Whoever keeps asking stays.
            assert buckets.take("honest") is (number == 0)
    assert len(buckets) == CAPACITY


# --- limits


def test_default_lets_a_reboot_of_a_gateway_through() -> None:
    """2,000 routers in two minutes, 50 of them behind one address, both versions each, every second one once more."""
    clock = Clock()
    limits = Limits(LimitsConfig(), clock)
    for number in range(2000):
        network = HONEST if number < 50 else network_of(f"198.18.{number // 256}.{number % 256}")
        limits.new_key(WELT, network)
        for _ in range(4 if number % 2 else 2):
            limits.request(network)
            limits.key(WELT, key(number))
        clock.now += 120 / 2000


def test_default_lets_a_hundred_nodes_behind_one_address_ask_every_minute() -> None:
    clock = Clock()
    limits = Limits(LimitsConfig(), clock)
    for minute in range(60):
        for number in range(100):
            if not minute:
                limits.new_key(WELT, HONEST)
            for _ in range(2):
                limits.request(HONEST)
                limits.key(WELT, key(number))
        clock.now += 60


def test_an_abuser_with_a_million_keys_gets_its_share_and_takes_nothing_from_others() -> None:
    clock = Clock()
    limits = Limits(LimitsConfig(), clock)
    got = 0

    def post(number: int) -> None:
        limits.request(ABUSER)
        limits.key(WELT, key(number))
        limits.new_key(WELT, ABUSER)

    for tenth in range(200):
        for number in range(500):
            got += not refused(partial(post, 500 * tenth + number))
        limits.request(HONEST)
        limits.key(WELT, key(1_000_000 + tenth))
        clock.now += 0.1
    # In 20 s: what the bucket holds, and ten more a minute.
    assert got == 303


def test_same_key_passes_a_few_times_a_minute_whoever_asks() -> None:
    clock = Clock()
    limits = Limits(LimitsConfig(), clock)
    passed = 0
    for _ in range(600):
        passed += not refused(lambda: limits.key(WELT, key(1)))
        clock.now += 0.5
    assert passed == 6 + 5 * 4 - 1


def test_each_limit_has_its_name() -> None:
    limits = Limits(small(network=(1, 1)), Clock())
    limits.request(HONEST)
    assert refused(lambda: limits.request(HONEST)) == "network"
    limits = Limits(small(broker=(1, 1)), Clock())
    limits.request(HONEST)
    assert refused(lambda: limits.request(ABUSER)) == "broker"
    limits = Limits(small(key=(1, 1)), Clock())
    limits.key(WELT, key(1))
    assert refused(lambda: limits.key(WELT, key(1))) == "key"
    limits = Limits(small(new_keys=(1, 1)), Clock())
    limits.new_key(WELT, HONEST)
    assert refused(lambda: limits.new_key(WELT, ABUSER)) == "new_keys"
    limits = Limits(small(new_keys_per_network=(1, 1)), Clock())
    limits.new_key(WELT, HONEST)
    assert refused(lambda: limits.new_key(WELT, HONEST)) == "new_keys"
    limits.new_key(WELT, ABUSER)


# --- responses


@pytest.mark.parametrize(
    ("limits", "limit", "domain"),
    [
        (small(network=(1, 1)), "network", "unknown"),
        (small(broker=(1, 1)), "broker", "unknown"),
        (small(key=(1, 1)), "key", WELT.name),
    ],
)
async def test_too_many_requests_are_429_and_counted(limits: LimitsConfig, limit: str, domain: str) -> None:
    async with Broker(limits=limits).serving() as broker:
        assert (await send(broker.listen, request("POST", PATH_V1, submission()))).status == 200
        before = broker.moved()
        answer = await send(broker.listen, request("POST", PATH_V2, submission()))
        assert_error(answer, 429, "rate_limited")
        assert int(answer.headers["retry-after"]) > 0
        changed = {name for name, value in broker.moved().items() if value != before.get(name)}
        assert changed == {
            f'wgkex_broker_key_requests_total{{api_version="v2",domain="{domain}"}}',
            'wgkex_broker_key_rejections_total{reason="rate_limited"}',
        }
        assert broker.registry.get_sample_value("wgkex_broker_rate_limited_total", {"limit": limit}) == 1
        assert len(broker.bus.published) == 1


async def test_each_client_behind_a_load_balancer_has_a_limit_of_its_own() -> None:
    async with Broker(limits=small(network=(1, 1))).serving() as broker:
        statuses = []
        for number, client in enumerate(("192.0.2.1", "192.0.2.2", "192.0.2.1")):
            headers = (f"X-Forwarded-For: {client}",)
            answer = await send(
                broker.listen, request("POST", PATH_V1, submission(public_key=str(key(number))), *headers)
            )
            statuses.append(answer.status)
        assert statuses == [200, 200, 429]
        # Not joined by the proxy: it adds a header to the one that the client has sent.
        both = ("X-Forwarded-For: 192.0.2.9", "X-Forwarded-For: 192.0.2.2")
        assert (await send(broker.listen, request("POST", PATH_V1, submission(), *both))).status == 429


async def test_a_new_key_too_many_is_refused_and_a_known_one_is_not() -> None:
    async with Broker(limits=small(new_keys_per_network=(2, 1))).serving() as broker:

        async def post(number: int) -> int:
            body = json.dumps({"domain": WELT.name, "public_key": str(key(number))}).encode()
            return (await send(broker.listen, request("POST", PATH_V1, body))).status

        assert [await post(number) for number in (1, 2, 3, 2, 1)] == [200, 200, 429, 200, 200]


async def test_a_load_balancer_that_names_no_client_is_noticed() -> None:
    async with Broker().serving() as broker:

        async def post(number: int, *headers: str) -> None:
            body = submission(public_key=str(key(number)))
            await send(broker.listen, request("POST", PATH_V1, body, *headers))

        for number in range(SUSPICIOUS_NODES):
            assert not broker.exchange.forwarding.suspect
            await post(number)
        assert broker.exchange.forwarding.suspect == "127.0.0.1"
        # The same node again shows nothing.
        await post(0, "X-Forwarded-For: 192.0.2.1")
        assert broker.exchange.forwarding.suspect
        await post(SUSPICIOUS_NODES, "X-Forwarded-For: 192.0.2.1")
        assert not broker.exchange.forwarding.suspect
