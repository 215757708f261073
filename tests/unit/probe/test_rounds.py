"""The order of a round's phases, what each takes, and what a failure is called."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import pytest

from tests.canary import FakeTunnels
from tests.fakes import in_virtual_time, run_in_virtual_time
from tests.helpers import WELT, key
from wgkex_ops.bus.messages import Endpoint
from wgkex_ops.errors import CannotProbeError, RoundFailedError
from wgkex_ops.model.rounds import BEARABLE, LIMIT, PHASES, Round
from wgkex_ops.probe.rounds import Gateway, run_round

ENDPOINT: Final = Endpoint("gw01.example.net", 40001, str(key(1)), "fe80::1")
GATEWAY: Final = Gateway("gw01.example.net", ENDPOINT)
FOR_EVER: Final = 1e6


def after(seconds: float, error: Exception | None = None) -> Callable[[], Awaitable[Gateway]]:
    """A broker that responds after some seconds."""

    async def request() -> Gateway:
        await asyncio.sleep(seconds)
        if error is not None:
            raise error
        return GATEWAY

    return request


async def go_round(request: Callable[[], Awaitable[Gateway]], tunnels: FakeTunnels) -> Round:
    done = await run_round(WELT, request, tunnels.open, clock=asyncio.get_running_loop().time)
    assert tunnels.closed == len(tunnels.opened)
    return done


@in_virtual_time
async def test_each_phase_is_measured_on_its_own() -> None:
    tunnels = FakeTunnels(handshake_seconds=2, vxlan_seconds=3)

    done = await go_round(after(1), tunnels)

    assert done.durations == {"post": 1, "handshake": 2, "vxlan": 3}
    assert (done.domain, done.gateway, done.failure) == (WELT.name, "gw01.example.net", "")
    assert done.succeeded
    assert done.failed_phase == ""
    assert tunnels.opened == [ENDPOINT]


@pytest.mark.parametrize(
    ("seconds", "completed", "gateway", "failure"),
    [
        ((FOR_EVER, 0, 0), [], "", "no response within 15 s: check the broker and what is in front of it"),
        (
            (1, FOR_EVER, 0),
            ["post"],
            "gw01.example.net",
            (
                "no handshake with gw01.example.net (UDP port 40001) within 15 s: its worker has not installed the "
                "key, or a firewall drops the packets"
            ),
        ),
        (
            (1, 2, FOR_EVER),
            ["post", "handshake"],
            "gw01.example.net",
            (
                "a tunnel, but no VXLAN packet of the mesh from gw01.example.net (UDP port 40001) within 15 s: check "
                "there that vx-welt is up and in its batman-adv interface, and its FDB entries"
            ),
        ),
    ],
    ids=PHASES,
)
def test_a_phase_that_does_not_end_is_the_one_that_failed(
    seconds: tuple[float, float, float], completed: list[str], gateway: str, failure: str
) -> None:
    async def run() -> None:
        done = await go_round(after(seconds[0]), FakeTunnels(*seconds[1:]))

        assert list(done.durations) == completed
        assert done.failed_phase == PHASES[len(completed)]
        assert (done.gateway, done.failure) == (gateway, failure)
        assert not done.succeeded

    run_in_virtual_time(run())


@pytest.mark.parametrize("phase", PHASES)
def test_a_phase_may_take_its_limit_and_no_more(phase: str) -> None:
    async def run(seconds: float) -> Round:
        taken = {each: seconds if each == phase else 0.0 for each in PHASES}
        tunnels = FakeTunnels(taken["handshake"], taken["vxlan"])
        return await go_round(after(taken["post"]), tunnels)

    assert run_in_virtual_time(run(LIMIT - 0.1)).succeeded
    assert run_in_virtual_time(run(LIMIT + 0.1)).failed_phase == phase


def test_what_takes_longer_than_a_node_bears_is_slow() -> None:
    async def run(seconds: float) -> Round:
        return await go_round(after(0), FakeTunnels(handshake_seconds=seconds))

    assert run_in_virtual_time(run(BEARABLE)).slow_phases == []
    assert run_in_virtual_time(run(BEARABLE + 0.1)).slow_phases == ["handshake"]


@in_virtual_time
async def test_a_refusal_of_the_broker_ends_the_round_with_its_reason() -> None:
    tunnels = FakeTunnels()

    done = await go_round(after(1, RoundFailedError("the broker refused the key")), tunnels)

    assert (done.failed_phase, done.failure) == ("post", "the broker refused the key")
    assert tunnels.opened == []


@in_virtual_time
async def test_a_gateway_that_cannot_be_used_fails_the_handshake() -> None:
    done = await go_round(after(1), FakeTunnels(error=RoundFailedError("the name has no address")))

    assert (done.failed_phase, done.failure, done.durations) == ("handshake", "the name has no address", {"post": 1})


@in_virtual_time
async def test_a_host_that_cannot_probe_is_no_failure_of_the_service() -> None:
    with pytest.raises(CannotProbeError, match="CAP_NET_ADMIN"):
        await go_round(after(0), FakeTunnels(error=CannotProbeError("CAP_NET_ADMIN is needed")))


@in_virtual_time
async def test_a_round_that_is_cancelled_leaves_no_tunnel() -> None:
    tunnels = FakeTunnels(vxlan_seconds=FOR_EVER)
    task = asyncio.create_task(go_round(after(0), tunnels))
    await asyncio.sleep(1)
    assert (len(tunnels.opened), tunnels.closed) == (1, 0)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert tunnels.closed == 1
