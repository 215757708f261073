"""Values of the metrics in a real Prometheus after a known course of events."""

import asyncio
import json
import re
import time

import pytest

from tests.helpers import CITY, TESTDATA, WELT
from tests.integration.inprocess import (
    RunningWorker,
    configuration,
    new_key,
    running_worker,
)
from tests.integration.loopback import eventually, eventually_answered
from tests.integration.scraped import System, start_system
from tests.integration.servers import Bench, Mosquitto


@pytest.fixture
async def system(bench: Bench, mosquitto: Mosquitto) -> System:
    return await start_system(bench, mosquitto)


async def test_what_can_be_known_in_advance_starts_at_0(system: System) -> None:
    prometheus = system.prometheus
    at_zero = (
        "wgkex_broker_key_requests_total",
        "wgkex_broker_key_rejections_total",
        "wgkex_broker_key_failures_total",
        "wgkex_broker_keys_published_total",
        "wgkex_broker_keys_awaiting_receipts",
        "wgkex_broker_keys_republished_total",
        "wgkex_broker_keys_unconfirmed_total",
        "wgkex_broker_key_confirmation_timeouts_total",
        "wgkex_broker_key_install_duration_seconds_count",
        "wgkex_broker_key_install_failures_total",
        "wgkex_broker_worker_assignments_total",
        "wgkex_broker_location_preferences_total",
        "wgkex_broker_message_rejections_total",
        "wgkex_worker_messages_received_total",
        "wgkex_worker_messages_deduplicated_total",
        "wgkex_worker_message_rejections_total",
        "wgkex_worker_peers_installed_total",
        "wgkex_worker_peer_install_failures_total",
        "wgkex_worker_receipts_total",
        "wgkex_worker_receipt_failures_total",
        "wgkex_worker_peers",
        "wgkex_worker_peer_sessions_started_total",
        "wgkex_worker_interface_receive_bytes_total",
        "wgkex_worker_interface_transmit_bytes_total",
        "wgkex_worker_incomplete_peers",
        "wgkex_worker_drift_repairs_total",
        "wgkex_worker_peers_restored_total",
        "wgkex_worker_peers_removed_total",
        "wgkex_worker_peers_adopted_total",
        "wgkex_worker_cleanup_runs_total",
        "wgkex_worker_cleanup_last_success_timestamp_seconds",
        "wgkex_worker_journal_entries",
        "wgkex_worker_journal_failures_total",
        "wgkex_worker_netlink_operation_failures_total",
        "wgkex_broker_http_requests_total",
        'wgkex_worker_netlink_operations_total{operation!="dump"}',
        "wgkex_mqtt_connection_failures_total",
    )
    for name in at_zero:
        values = await prometheus.query(name)
        assert values, name
        assert set(values.values()) == {0}, name
    domains = {WELT.name, CITY.name}
    by_domain = await prometheus.query("count by (domain) (wgkex_worker_peers)")
    assert {dict(labels)["domain"] for labels in by_domain} == domains
    requests = await prometheus.query("count by (domain) (wgkex_broker_key_requests_total)")
    assert {dict(labels)["domain"] for labels in requests} == domains | {"unknown"}


async def test_counters_have_exactly_what_happened(system: System, mosquitto: Mosquitto) -> None:
    v1, v2 = "/api/v1/wg/key/exchange", "/api/v2/wg/key/exchange"
    key = str(new_key())
    rejected = json.loads((TESTDATA / "public_keys_rejected.json").read_text())

    def body(**members: object) -> bytes:
        return json.dumps(members).encode()

    for _ in range(3):
        assert (await system.submit(1, WELT.name, new_key())).status == 200
    for _ in range(2):
        assert (await system.submit(2, CITY.name, new_key())).status == 200
    for path, content, status in (
        (v1, b"nonsense", 400),
        (v2, b"nonsense", 400),
        (v1, body(domain=WELT.name), 400),
        (v1, body(domain=WELT.name, public_key=key[:-1]), 400),
        (v2, body(domain=CITY.name, public_key=rejected["small_order"][0]["public_key"]), 400),
        (v1, body(domain="ffmuc_elsewhere", public_key=key), 400),
        (v1, body(domain=WELT.name, public_key=key, padding="x" * 5000), 413),
        ("/wp-login.php", b"nonsense", 404),
    ):
        assert (await system.post(path, content)).status == status
    # By another way to the bus.
    mosquitto.publish(f"wireguard/{WELT.name}/all", key[:-1])
    mosquitto.publish(f"wireguard/{WELT.name}/gw01", rejected["small_order"][0]["public_key"])
    mosquitto.publish(f"wireguard/{WELT.name}/gw02", key)
    mosquitto.publish("wireguard-worker/gw01/status", "nonsense")
    mosquitto.publish("wireguard-metrics/elsewhere/gw01/connected_peers", "1")

    expected: dict[str, dict[tuple[str, ...], float]] = {
        "sum by (api_version, domain) (wgkex_broker_key_requests_total)": {
            ("v1", WELT.name): 5,
            ("v2", CITY.name): 3,
            ("v1", "unknown"): 3,
            ("v2", "unknown"): 1,
        },
        "sum by (reason) (wgkex_broker_key_rejections_total)": {
            ("malformed_json",): 2,
            ("missing_field",): 1,
            ("invalid_public_key",): 1,
            ("small_order_public_key",): 1,
            ("unknown_domain",): 1,
            ("too_large",): 1,
        },
        "sum by (reason) (wgkex_broker_key_failures_total)": {},
        "sum by (domain) (wgkex_broker_keys_published_total)": {(WELT.name,): 3, (CITY.name,): 2},
        "sum by (domain, worker) (wgkex_broker_worker_assignments_total)": {(CITY.name, "gw01"): 2},
        "sum by (domain, worker) (wgkex_broker_worker_peers)": {(CITY.name, "gw01"): 2},
        "sum by (reason) (wgkex_broker_message_rejections_total)": {
            ("malformed_payload",): 1,
            ("unknown_domain",): 1,
        },
        "sum by (handler, code, method) (wgkex_broker_http_requests_total)": {
            ("200", v1, "POST"): 3,
            ("400", v1, "POST"): 4,
            ("413", v1, "POST"): 1,
            ("200", v2, "POST"): 2,
            ("400", v2, "POST"): 2,
            ("404", "unknown", "POST"): 1,
        },
        "sum by (handler) (wgkex_broker_http_request_duration_seconds_count)": {(v1,): 8, (v2,): 4, ("unknown",): 1},
        "sum (wgkex_broker_key_publish_duration_seconds_count)": {(): 5},
        "sum by (worker) (wgkex_broker_key_install_duration_seconds_count)": {("gw01",): 5},
        "sum by (worker) (wgkex_broker_key_install_failures_total)": {},
        "sum by (worker) (wgkex_broker_key_confirmation_timeouts_total)": {},
        "sum by (worker) (wgkex_broker_keys_republished_total)": {},
        "sum by (worker) (wgkex_broker_keys_unconfirmed_total)": {},
        "sum (wgkex_broker_keys_awaiting_receipts)": {},
        "sum by (domain) (wgkex_worker_messages_received_total)": {(WELT.name,): 5, (CITY.name,): 2},
        "sum by (reason) (wgkex_worker_message_rejections_total)": {
            ("invalid_public_key",): 1,
            ("small_order_public_key",): 1,
        },
        "sum by (domain) (wgkex_worker_peers_installed_total)": {(WELT.name,): 3, (CITY.name,): 2},
        "sum by (domain) (wgkex_worker_peer_install_failures_total)": {},
        "sum by (domain, state) (wgkex_worker_peers)": {(WELT.name, "never"): 3, (CITY.name, "never"): 2},
        "sum by (domain) (wgkex_worker_routes)": {(WELT.name,): 3, (CITY.name,): 2},
        "sum by (domain) (wgkex_worker_fdb_entries)": {(WELT.name,): 3, (CITY.name,): 2},
        'sum by (operation) (wgkex_worker_netlink_operations_total{operation!="dump"})': {
            ("peer_add",): 5,
            ("route_add",): 5,
            ("fdb_add",): 5,
        },
        "sum by (domain, interface) (wgkex_worker_interface_up)": {
            (domain.name, interface): 1 for domain in (WELT, CITY) for interface in (domain.wg, domain.vx)
        },
        "sum by (domain, missing) (wgkex_worker_incomplete_peers)": {},
        "sum (wgkex_worker_key_propagation_seconds_count)": {(): 5},
        'sum by (interface) (wireguard_peer_info{name=""})': {(WELT.wg,): 3, (CITY.wg,): 2},
        "sum by (domain) (wgkex_worker_peer_series_suppressed)": {},
        "sum (wgkex_worker_queue_length)": {},
        "sum by (job) (wgkex_mqtt_connected)": {("broker",): 1, ("worker",): 1},
        "sum by (job) (wgkex_mqtt_connects_total)": {("broker",): 1, ("worker",): 1},
        "sum by (job) (wgkex_mqtt_disconnects_total)": {},
        "sum by (job) (wgkex_mqtt_publishes_in_flight)": {},
        "sum (wgkex_broker_brokers_online)": {(): 1},
        "sum by (worker) (wgkex_broker_worker_online)": {("gw01",): 1},
        "sum by (worker) (wgkex_broker_worker_target_peers)": {("gw01",): 2},
        "sum by (component) (wgkex_build_info)": {("broker",): 1, ("worker",): 1},
        "sum by (broker, job) (wgkex_broker_info)": {("gw01", "broker"): 1},
        "sum by (job, worker) (wgkex_worker_info)": {("worker", "gw01"): 1},
        # The scrape has the time of this host, too.
        "count by (job) (abs(timestamp(wgkex_time_seconds) - wgkex_time_seconds) < 5)": {
            ("broker",): 1,
            ("worker",): 1,
        },
        "sum by (collector) (wgkex_worker_collector_success)": {("wireguard",): 1},
    }

    async def moved(expression: str) -> dict[tuple[str, ...], float]:
        """What is not 0, by the values of its labels in the order of their names."""
        data = await system.prometheus.get("query", query=expression)
        found = {
            tuple(value for _, value in sorted(item["metric"].items())): float(item["value"][1])
            for item in data["result"]
        }
        return {labels: value for labels, value in found.items() if value}

    # Each expression settles at its own scrape.
    seen: dict[str, dict[tuple[str, ...], float]] = {}

    async def settled() -> bool:
        for expression in expected:
            seen[expression] = await moved(expression)
        return seen == expected

    try:
        await eventually_answered(settled, "the expected values")
    except AssertionError:
        assert seen == expected


async def test_exemplars_lead_from_a_latency_to_the_log(system: System) -> None:
    answer = await system.submit(1, WELT.name, new_key())
    request_id = answer.headers["X-Request-Id"]
    for histogram in (
        "wgkex_broker_http_request_duration_seconds",
        "wgkex_broker_key_publish_duration_seconds",
        "wgkex_broker_key_install_duration_seconds",
        "wgkex_worker_key_propagation_seconds",
    ):

        async def has_it(histogram: str = histogram) -> bool:
            found = await system.prometheus.get(
                "query_exemplars", query=f"{histogram}_bucket", start=str(time.time() - 60), end=str(time.time() + 60)
            )
            return request_id in {
                exemplar["labels"]["request_id"] for series in found for exemplar in series["exemplars"]
            }

        await eventually_answered(has_it, f"an exemplar of {histogram}")


async def test_sessions_and_traffic_are_counted_by_domain(mosquitto: Mosquitto) -> None:
    sessions = "wgkex_worker_peer_sessions_started_total"
    async with running_worker(configuration(mosquitto.port)) as worker:
        await handshake_ages(worker, mosquitto, 3)
        assert worker.metric(sessions, domain=WELT.name) == 0
        worker.dataplane.report_links()
        await eventually(lambda: worker.metric(sessions, domain=WELT.name) == 3, "a scan")
        assert worker.metric(sessions, domain=CITY.name) == 0
        worker.dataplane.remove_interfaces(CITY)
        await worker.page("/metrics")
        for direction in ("receive", "transmit"):
            name = f"wgkex_worker_interface_{direction}_bytes_total"
            seen = {
                labels["interface"]: worker.metric(name, **labels)
                for labels in ({"domain": WELT.name, "interface": interface} for interface in (WELT.wg, WELT.vx))
            }
            assert seen[WELT.wg] > seen[WELT.vx] > 0
            missing = {"domain": CITY.name, "interface": CITY.vx}
            assert worker.registry.get_sample_value(name, missing) is None


async def test_the_time_of_a_scrape_is_that_of_its_beginning(mosquitto: Mosquitto) -> None:
    """To read thousands of peers takes a while, which is no skew of the clock."""
    async with running_worker(configuration(mosquitto.port)) as worker:
        before = worker.dataplane.snapshots
        worker.dataplane.may_read.clear()
        async with asyncio.TaskGroup() as group:
            scrape = group.create_task(worker.page("/metrics"))
            await eventually(lambda: worker.dataplane.snapshots > before, "a scrape that reads")
            reading_since = time.time()
            worker.dataplane.may_read.set()
        [shown] = re.findall(r"^wgkex_time_seconds (\S+)$", scrape.result().text, re.MULTILINE)
        assert reading_since - 10 < float(shown) <= reading_since


async def handshake_ages(worker: RunningWorker, mosquitto: Mosquitto, count: int) -> None:
    keys = [new_key() for _ in range(count)]
    for key in keys:
        mosquitto.publish(f"wireguard/{WELT.name}/all", str(key))

    async def all_there() -> bool:
        return all(worker.dataplane.shake_hands(WELT, key) for key in keys)

    await eventually_answered(all_there, "all peers")


async def test_quantiles_of_handshake_ages_can_be_asked_for(bench: Bench, mosquitto: Mosquitto) -> None:
    now = 2_000_000_000.0
    async with running_worker(configuration(mosquitto.port), clock=lambda: now) as worker:
        # 6 peers with a handshake 400 s ago, 4 with one 100 s ago, one that never had one.
        await handshake_ages(worker, mosquitto, 6)
        now += 300
        await handshake_ages(worker, mosquitto, 4)
        now += 100
        mosquitto.publish(f"wireguard/{WELT.name}/all", str(new_key()))
        prometheus = await bench.prometheus({"worker": str(worker.pages)})
        never = f'wgkex_worker_peers{{domain="{WELT.name}",state="never"}}'

        async def scraped() -> bool:
            return await prometheus.scalar(never) == 1

        await eventually_answered(scraped, "a scrape")
        ages = f'wgkex_worker_peer_handshake_age_seconds_%s{{domain="{WELT.name}"}}'
        assert await prometheus.scalar(ages % "gcount") == 10
        assert await prometheus.scalar(ages % "gsum") == 6 * 400 + 4 * 100
        # Of the buckets (60, 120] and (300, 600], by linear interpolation.
        assert await prometheus.scalar(f"histogram_quantile(0.2, {ages % 'bucket'})") == pytest.approx(90)
        assert await prometheus.scalar(f"histogram_quantile(0.7, {ages % 'bucket'})") == pytest.approx(450)
        newest = f'wgkex_worker_newest_handshake_timestamp_seconds{{domain="{WELT.name}"}}'
        assert await prometheus.scalar(newest) == 2_000_000_300
        states = await prometheus.query(f'sum by (state) (wgkex_worker_peers{{domain="{WELT.name}"}})')
        assert {dict(labels)["state"]: value for labels, value in states.items()} == {
            "active": 4,
            "idle": 6,
            "stale": 0,
            "never": 1,
        }
