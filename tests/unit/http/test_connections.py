"""How many connections there may be, and which one has to go."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field

import structlog

from wgkex_ops.config.limits import ConnectionLimits
from wgkex_ops.http.connections import Connections

HOME, OFFICE = b"\xc0\x00\x02\x01", b"\xc0\x00\x02\x02"


@dataclass(eq=False)
class Client:
    """A connection that waits for its client unless it is busy."""

    busy: bool = False
    slow: bool = False
    cuts: int = 0

    def waits_for_client(self) -> bool:
        return not self.busy

    def is_slow(self, _now: float) -> bool:
        return self.slow

    def cut(self) -> None:
        self.cuts += 1


@dataclass
class Listener:
    """Room for three connections, two of each network."""

    refused: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        limits = ConnectionLimits.model_construct(total=3, per_network=2)
        self.connections = Connections(limits, self.refused.append)

    def connect(self, network: bytes | None = None, *, busy: bool = False) -> Client:
        client = Client(busy)
        assert self.connections.admit(client, network)
        return client


async def test_the_one_that_was_used_longest_ago_goes_for_a_new_one() -> None:
    listener = Listener()
    first, second, third = (listener.connect() for _ in range(3))
    listener.connections.use(first)
    listener.connect()
    assert [client.cuts for client in (first, second, third)] == [0, 1, 0]
    assert listener.refused == ["total"]
    assert len(listener.connections) == 3


async def test_one_that_is_being_served_does_not_go() -> None:
    listener = Listener()
    served, waiting = listener.connect(busy=True), listener.connect()
    listener.connect(busy=True)
    listener.connect(busy=True)
    assert (served.cuts, waiting.cuts) == (0, 1)
    assert not listener.connections.admit(Client(), None)
    assert listener.refused == ["total", "total"]
    assert len(listener.connections) == 3


async def test_a_network_at_its_limit_loses_one_of_its_own() -> None:
    listener = Listener()
    other = listener.connect(OFFICE)
    own = [listener.connect(HOME), listener.connect(HOME)]
    newest = listener.connect(HOME)
    assert [client.cuts for client in (other, *own, newest)] == [0, 1, 0, 0]
    assert listener.refused == ["network"]


async def test_a_network_whose_connections_are_all_served_gets_no_other_one() -> None:
    listener = Listener()
    for _ in range(2):
        listener.connect(HOME, busy=True)
    assert not listener.connections.admit(Client(), HOME)
    assert listener.refused == ["network"]


async def test_a_network_gets_its_room_back_however_a_connection_ends() -> None:
    listener = Listener()
    for _ in range(100):
        closed, slow = listener.connect(HOME), listener.connect(HOME)
        listener.connections.remove(closed)
        slow.slow = True
        listener.connections.cut_slow(0.0)
        # As the kernel reports it later.
        listener.connections.remove(slow)
        listener.connections.use(slow)
    assert len(listener.connections) == 0
    assert Counter(listener.refused) == {"slow": 100}


async def test_refusal_for_want_of_room_costs_a_network_nothing() -> None:
    listener = Listener()
    for _ in range(3):
        listener.connect(busy=True)
    for _ in range(5):
        assert not listener.connections.admit(Client(), HOME)
    assert Counter(listener.refused) == {"total": 5}


async def test_load_balancers_have_no_limit_of_their_own() -> None:
    listener = Listener()
    balancer = [listener.connect(None) for _ in range(3)]
    assert [client.cuts for client in balancer] == [0, 0, 0]


async def test_slow_clients_are_cut_and_logged_once_a_minute() -> None:
    listener = Listener()
    with structlog.testing.capture_logs() as events:
        for now in range(0, 120, 10):
            client = listener.connect()
            client.slow = True
            listener.connections.cut_slow(float(now))
            assert client.cuts == 1
    assert [(event["event"], event["slow"]) for event in events] == [("connections_cut", 1), ("connections_cut", 6)]


async def test_close_waits_until_the_last_one_is_closed() -> None:
    listener = Listener()
    clients = [listener.connect(), listener.connect()]
    closing = asyncio.create_task(listener.connections.close())
    await asyncio.sleep(0.01)
    assert [client.cuts for client in clients] == [1, 1]
    assert not closing.done()
    for client in clients:
        listener.connections.remove(client)
    await closing
