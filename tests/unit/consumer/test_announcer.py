"""What a worker announces to brokers, and when."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from importlib.metadata import version

import pytest
import structlog

from tests.fakes import FakeSession, run_in_virtual_time
from tests.helpers import CITY, OTHER_KEY, WELT, running
from wgkex_ops.bus.messages import ConnectedPeers, Endpoint, WorkerData, WorkerStatus, parse_worker_event
from wgkex_ops.consumer.announcer import Announcer
from wgkex_ops.http.gateways.fleet import fleet_status
from wgkex_ops.http.gateways.registry import Gateways
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey
from wgkex_ops.model.peers import DomainState, Snapshot

GATEWAY = DomainState(
    wg_present=True,
    wg_up=True,
    vx_present=True,
    vx_up=True,
    public_key=PublicKey.parse(OTHER_KEY).raw,
    listen_port=40_001,
    link_address="fe80::1",
)


def announcer(
    bus: FakeSession,
    state: DomainState = GATEWAY,
    *,
    receipts: bool = True,
    draining: Callable[[], bool] = lambda: False,
) -> Announcer:
    async def read() -> Snapshot:
        return Snapshot(0.0, {WELT.name: state})

    return Announcer(
        session=bus,
        read=read,
        domains=[WELT],
        worker="gw01",
        address="gw01.example.net",
        receipts=receipts,
        draining=draining,
    )


def test_a_gateway_that_drains_says_so_and_how_many_peers_it_has_is_for_nobody_to_know() -> None:
    async def body() -> None:
        bus = FakeSession()
        draining = False
        announcing = announcer(bus, draining=lambda: draining)
        async with running(announcing.run()):
            await asyncio.sleep(1)
            draining = True
            announcing.trigger()
            await asyncio.sleep(1)
            draining = False
            announcing.trigger()
            await asyncio.sleep(1)
        events = [parse_worker_event(one.topic, one.payload, one.properties) for one in bus.sent]
        data = [event.endpoint for event in events if isinstance(event, WorkerData)]
        assert [endpoint.draining for endpoint in data if endpoint is not None] == [False, True, False]
        assert [event.peers for event in events if isinstance(event, ConnectedPeers)] == [0, None, 0]
        (status,) = [event for event in events if isinstance(event, WorkerStatus)]
        assert status == WorkerStatus("gw01", online=True, version=version("wgkex-ops"))

    run(body)


class TwoDomains:
    """A gateway of two domains whose interfaces come and go, and that drains at first."""

    def __init__(self) -> None:
        self.bus = FakeSession()
        self.states = {WELT.name: GATEWAY, CITY.name: GATEWAY}
        self.drains = True
        self.announcer = self.worker()

    def worker(self) -> Announcer:
        async def read() -> Snapshot:
            return Snapshot(0.0, dict(self.states))

        return Announcer(
            session=self.bus,
            read=read,
            domains=[WELT, CITY],
            worker="gw01",
            address="gw01.example.net",
            receipts=True,
            draining=lambda: self.drains,
        )

    async def now(self, *, drains: bool, **states: DomainState) -> None:
        self.drains = drains
        self.states |= states
        self.announcer.trigger()
        await asyncio.sleep(1)

    def retained(self) -> Gateways:
        """What a broker finds that starts now."""
        gateways = Gateways({}, [WELT.name, CITY.name])
        for one in {message.topic: message for message in self.bus.sent}.values():
            gateways.update(parse_worker_event(one.topic, one.payload, one.properties), 0.0)
        return gateways


@pytest.mark.parametrize("missing", [(CITY,), (WELT, CITY)], ids=("one", "all"))
@pytest.mark.parametrize("restarted", [False, True])
def test_a_missing_interface_does_not_make_the_drain_last(missing: Sequence[Domain], *, restarted: bool) -> None:
    async def body() -> None:
        gateway = TwoDomains()
        gone = {domain.name: DomainState() for domain in missing}
        async with running(gateway.announcer.run()):
            await gateway.now(drains=True)
            assert gateway.retained().workers["gw01"].draining
            if not restarted:
                await gateway.now(drains=True, **gone)
                assert gateway.retained().workers["gw01"].draining
                await gateway.now(drains=False)
        if restarted:
            gateway.states |= gone
            gateway.announcer = gateway.worker()
            async with running(gateway.announcer.run()):
                await gateway.now(drains=True)
                assert gateway.retained().workers["gw01"].draining
                await gateway.now(drains=False)
        status = fleet_status(gateway.retained(), source="", domains=[WELT.name, CITY.name], listed=())
        assert [(one.state, one.refused) for one in status.gateways] == [("partly", tuple(gone))]
        count = len(gateway.bus.sent)
        async with running(gateway.announcer.run()):
            await gateway.now(drains=False, **{domain.name: GATEWAY for domain in missing})
        assert len(gateway.bus.sent) > count
        assert gateway.retained().workers["gw01"].endpoints.keys() == {WELT.name, CITY.name}

    run(body)


def test_a_missing_interface_takes_no_data_away_from_brokers_without_a_drain() -> None:
    async def body() -> None:
        gateway = TwoDomains()
        gateway.drains = False
        async with running(gateway.announcer.run()):
            await gateway.now(drains=False)
            before = [topic for topic, _ in published(gateway.bus) if topic.endswith("/data")]
            await gateway.now(drains=False, **{CITY.name: DomainState()})
            assert [topic for topic, _ in published(gateway.bus) if topic.endswith("/data")] == before
        gateway.announcer = gateway.worker()
        async with running(gateway.announcer.run()):
            await gateway.now(drains=False)
        assert gateway.retained().workers["gw01"].endpoints.keys() == {WELT.name, CITY.name}

    run(body)


def published(bus: FakeSession) -> list[tuple[str, bytes]]:
    return [(message.topic, message.payload) for message in bus.sent]


def run(body: Callable[[], Awaitable[None]]) -> None:
    async def quietly() -> None:
        with structlog.testing.capture_logs():
            await body()

    run_in_virtual_time(quietly())


def test_data_and_peers_come_before_the_status_and_only_peers_again_a_minute_later() -> None:
    async def body() -> None:
        bus = FakeSession()
        async with running(announcer(bus).run()):
            await asyncio.sleep(59)
            assert [topic.rpartition("/")[2] for topic, _ in published(bus)] == ["data", "connected_peers", "status"]
            await asyncio.sleep(2)
        assert [topic.rpartition("/")[2] for topic, _ in published(bus)[3:]] == ["connected_peers"]

    run(body)


@pytest.mark.parametrize("receipts", [True, False])
def test_data_announces_whether_receipts_are_sent(*, receipts: bool) -> None:
    async def body() -> None:
        bus = FakeSession()
        async with running(announcer(bus, receipts=receipts).run()):
            await asyncio.sleep(1)
        (event,) = (parse_worker_event(*message) for message in published(bus) if message[0].endswith("/data"))
        assert event == WorkerData(
            "gw01", WELT.name, Endpoint("gw01.example.net", 40_001, OTHER_KEY, "fe80::1", receipts=receipts)
        )

    run(body)


def test_a_refused_announcement_is_tried_again_after_a_pause_and_not_at_once() -> None:
    async def body() -> None:
        bus = FakeSession(refused="connected_peers")
        async with running(announcer(bus).run()):
            await asyncio.sleep(12)
        assert [topic.rpartition("/")[2] for topic, _ in published(bus)] == ["data", "connected_peers"] * 3

    run(body)


def test_one_refused_message_does_not_keep_the_others_from_being_published() -> None:
    async def body() -> None:
        bus = FakeSession(refused="status")
        await announcer(bus).sign_off(1.0)
        assert published(bus) == [
            ("wireguard-worker/gw01/status", b"0"),
            (f"wireguard-metrics/{WELT.name}/gw01/connected_peers", b"-1"),
        ]

    run(body)


@pytest.mark.parametrize(
    ("state", "problems"),
    [
        (GATEWAY, []),
        (DomainState(), ["wg-welt is missing", "vx-welt is missing"]),
        (replace(GATEWAY, wg_up=False, vx_up=False), ["wg-welt is down", "vx-welt is down"]),
        (replace(GATEWAY, public_key=b""), ["wg-welt has no private key"]),
        # The kernel takes the address away when the interface goes down, and gives none back when it comes up.
        (replace(GATEWAY, link_address=""), ["wg-welt has no link-local address"]),
    ],
)
def test_a_gateway_that_nodes_cannot_reach_shows_why(state: DomainState, problems: list[str]) -> None:
    async def body() -> None:
        made = announcer(FakeSession(), state)
        assert made.problems() == ["the dataplane could not be read"]
        await made.refresh()
        assert made.problems() == problems

    run(body)
