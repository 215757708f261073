"""Which gateway version 2 names, as workers and brokers come and go."""

import signal
from collections import Counter
from collections.abc import Mapping

from tests.helpers import CITY, WELT
from tests.integration.gateways import gateways_known
from tests.integration.inprocess import RunningBroker, configuration, new_key, running_broker, running_worker, settings
from tests.integration.keys import failure_of, installed
from tests.integration.loopback import eventually, eventually_answered
from tests.integration.servers import Bench, Mosquitto


def formula(weights: Mapping[str, float], rounds: int) -> Counter[str]:
    """The contract's formula, from no peers at all: how many nodes each worker gets."""
    peers: Counter[str] = Counter()
    for _ in range(rounds):
        total = peers.total()
        chosen = min(weights, key=lambda name: (peers[name] - weights[name] / sum(weights.values()) * total, name))
        peers[chosen] += 1
    return peers


async def chosen_by(broker: RunningBroker, rounds: int) -> Counter[str]:
    answers = [await broker.submit(2, WELT.name, new_key()) for _ in range(rounds)]
    assert {answer.status for answer in answers} == {200}
    return Counter(answer.json["Endpoint"]["Address"].removesuffix(".example.net") for answer in answers)


async def test_weights_decide_until_a_worker_stops(bench: Bench, mosquitto: Mosquitto) -> None:
    weights = {"gw01": 30, "gw02": 10}
    changes = {"workers": {name: {"weight": weight} for name, weight in weights.items()}}
    second = bench.wgkex("worker", settings(mosquitto.port, "gw02", **changes))
    config = configuration(mosquitto.port, **changes)
    async with running_worker(config), running_broker(config) as broker:
        await gateways_known(broker, "gw01", "gw02")
        chosen = await chosen_by(broker, 60)
        assert chosen == formula(weights, 60) == {"gw01": 45, "gw02": 15}
        for name, count in chosen.items():
            labels = {"worker": name, "domain": WELT.name}
            assert broker.metric("wgkex_broker_worker_assignments_total", **labels) == count

        assert await second.stop() == 0
        await gateways_known(broker, "gw01")
        assert await chosen_by(broker, 5) == {"gw01": 5}


async def test_a_killed_worker_is_not_chosen(bench: Bench, mosquitto: Mosquitto) -> None:
    second = bench.wgkex("worker", settings(mosquitto.port, "gw02"))
    config = configuration(mosquitto.port)
    async with running_worker(config), running_broker(config) as broker:
        await gateways_known(broker, "gw01", "gw02")
        assert await chosen_by(broker, 4) == {"gw01": 2, "gw02": 2}
        await second.stop(signal.SIGKILL)
        await gateways_known(broker, "gw01")
        assert await chosen_by(broker, 4) == {"gw01": 4}


async def test_brokers_know_of_each_other_and_count_an_assignment_for_all(bench: Bench, mosquitto: Mosquitto) -> None:
    async def counts(broker: RunningBroker, brokers: int) -> None:
        async def counted() -> bool:
            await broker.page("/metrics")
            return broker.metric("wgkex_broker_brokers_online") == brokers

        await eventually_answered(counted, f"{brokers} brokers")

    observer = await bench.observe(mosquitto, "wireguard-broker/#")
    config = configuration(mosquitto.port)
    async with running_worker(config), running_broker(config) as broker:
        await gateways_known(broker, "gw01")
        async with running_broker(configuration(mosquitto.port, "other")) as other:
            await counts(broker, 2)
            await counts(other, 2)
            assert await chosen_by(broker, 3) == {"gw01": 3}
            await broker.page("/metrics")
            assert broker.metric("wgkex_broker_worker_assignments_total", worker="gw01", domain=WELT.name) == 3
            assert broker.metric("wgkex_broker_worker_peers", worker="gw01", domain=WELT.name) == 6
        await counts(broker, 1)
        assert await chosen_by(broker, 1) == {"gw01": 1}
        await broker.page("/metrics")
        assert broker.metric("wgkex_broker_worker_peers", worker="gw01", domain=WELT.name) == 7
    await observer.sees("wireguard-broker/gw01/status", "0")
    for name in ("gw01", "other"):
        assert observer.payloads(f"wireguard-broker/{name}/status") == [b"1", b"0"]
    assert {(seen.qos, seen.retained) for seen in observer.messages} == {(1, True)}


async def test_a_gateway_without_its_interface_is_not_chosen_until_it_is_back(
    bench: Bench, mosquitto: Mosquitto
) -> None:
    peers = f"wireguard-metrics/{WELT.name}/gw01/connected_peers"
    observer = await bench.observe(mosquitto)
    config = configuration(mosquitto.port)
    async with running_worker(config) as worker, running_broker(config) as broker:
        await gateways_known(broker, "gw01")
        worker.dataplane.remove_interfaces(WELT)
        await observer.sees(peers, "-1")
        page = await worker.page("/-/ready")
        assert page.status == 503
        assert "wg-welt is missing" in page.text

        waiting = new_key()

        async def refused() -> bool:
            return failure_of(await broker.submit(2, WELT.name, waiting)) == (503, "no_worker")

        await eventually_answered(refused, "a refusal")
        assert (await broker.submit(2, CITY.name, new_key())).status == 200
        assert (await broker.submit(1, WELT.name, waiting)).status == 200

        before = len(observer.payloads(peers))
        worker.dataplane.create_interfaces(WELT)
        # The key that was waiting for the interface does not wait for its node to ask again.
        await installed(worker, WELT, waiting)
        await eventually(lambda: b"0" in observer.payloads(peers)[before:], "peers again")
        assert (await worker.page("/-/ready")).status == 200

        async def accepted() -> bool:
            return (await broker.submit(2, WELT.name, new_key())).status == 200

        await eventually_answered(accepted, "a success")
