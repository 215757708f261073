"""Names, types and labels of the metrics, as a real Prometheus stores them."""

import asyncio
import base64
import json
from typing import Final

import pytest
from prometheus_client import CollectorRegistry

from tests.helpers import WELT
from tests.integration.inprocess import (
    configuration,
    new_key,
    running_broker,
    running_worker,
)
from tests.integration.loopback import request, run
from tests.integration.scraped import NAMED, System, start_programs, start_system
from tests.integration.servers import Bench, Mosquitto

# A public interface: dashboards, alert rules and other people's rules build on it. Type and labels by name, as
# Prometheus knows them: of a counter without `_total`.
BOTH: Final = {
    "process_cpu_seconds": ("counter", ""),
    "process_max_fds": ("gauge", ""),
    "process_open_fds": ("gauge", ""),
    "process_resident_memory_bytes": ("gauge", ""),
    "process_start_time_seconds": ("gauge", ""),
    "process_virtual_memory_bytes": ("gauge", ""),
    "python_gc_collections": ("counter", "generation"),
    "python_gc_objects_collected": ("counter", "generation"),
    "python_gc_objects_uncollectable": ("counter", "generation"),
    "python_info": ("gauge", "implementation major minor patchlevel version"),
    "wgkex_build_info": ("gauge", "component python_version revision version"),
    "wgkex_key_list_entries": ("gauge", "list"),
    "wgkex_key_list_last_reload_success_timestamp_seconds": ("gauge", ""),
    "wgkex_key_list_last_reload_successful": ("gauge", ""),
    "wgkex_mqtt_certificate_expiry_timestamp_seconds": ("gauge", ""),
    "wgkex_mqtt_connected": ("gauge", ""),
    "wgkex_mqtt_connection_failures": ("counter", "reason"),
    "wgkex_mqtt_connects": ("counter", ""),
    "wgkex_mqtt_disconnects": ("counter", ""),
    "wgkex_mqtt_last_message_received_timestamp_seconds": ("gauge", ""),
    "wgkex_mqtt_messages_dropped": ("counter", ""),
    "wgkex_mqtt_publishes_in_flight": ("gauge", ""),
    "wgkex_time_seconds": ("gauge", ""),
}
BROKER: Final = BOTH | {
    "wgkex_broker_brokers_online": ("gauge", ""),
    "wgkex_broker_connections": ("gauge", ""),
    "wgkex_broker_connections_refused": ("counter", "reason"),
    "wgkex_broker_http_request_duration_seconds": ("histogram", "handler"),
    "wgkex_broker_http_requests": ("counter", "code handler method"),
    "wgkex_broker_http_requests_in_progress": ("gauge", ""),
    "wgkex_broker_info": ("gauge", "broker"),
    "wgkex_broker_key_confirmation_timeouts": ("counter", "worker"),
    "wgkex_broker_key_failures": ("counter", "reason"),
    "wgkex_broker_key_first_requests": ("counter", "domain"),
    "wgkex_broker_key_install_duration_seconds": ("histogram", "worker"),
    "wgkex_broker_key_install_failures": ("counter", "worker"),
    "wgkex_broker_key_publish_duration_seconds": ("histogram", ""),
    "wgkex_broker_key_rejections": ("counter", "reason"),
    "wgkex_broker_key_requests": ("counter", "api_version domain"),
    "wgkex_broker_keys_awaiting_receipts": ("gauge", ""),
    "wgkex_broker_keys_confirmed_nowhere": ("counter", "domain"),
    "wgkex_broker_keys_published": ("counter", "domain"),
    "wgkex_broker_keys_republished": ("counter", "worker"),
    "wgkex_broker_keys_returned": ("counter", "worker"),
    "wgkex_broker_keys_unconfirmed": ("counter", "worker"),
    "wgkex_broker_location_preferences": ("counter", "result"),
    "wgkex_broker_message_rejections": ("counter", "reason"),
    "wgkex_broker_rate_limited": ("counter", "limit"),
    "wgkex_broker_worker_assigned_nodes": ("counter", "worker"),
    "wgkex_broker_worker_assignments": ("counter", "domain worker"),
    "wgkex_broker_worker_confirming": ("gauge", "worker"),
    "wgkex_broker_worker_last_seen_timestamp_seconds": ("gauge", "worker"),
    "wgkex_broker_worker_online": ("gauge", "worker"),
    "wgkex_broker_worker_peers": ("gauge", "domain worker"),
    "wgkex_broker_worker_target_peers": ("gauge", "worker"),
}
WORKER: Final = BOTH | {
    "wgkex_worker_cleanup_last_success_timestamp_seconds": ("gauge", ""),
    "wgkex_worker_cleanup_runs": ("counter", "result"),
    "wgkex_worker_collector_duration_seconds": ("gauge", "collector"),
    "wgkex_worker_collector_success": ("gauge", "collector"),
    "wgkex_worker_drift_repairs": ("counter", "domain missing"),
    "wgkex_worker_fdb_entries": ("gauge", "domain"),
    "wgkex_worker_incomplete_peers": ("gauge", "domain missing"),
    "wgkex_worker_info": ("gauge", "worker"),
    "wgkex_worker_interface_receive_bytes": ("counter", "domain interface"),
    "wgkex_worker_interface_transmit_bytes": ("counter", "domain interface"),
    "wgkex_worker_interface_up": ("gauge", "domain interface"),
    "wgkex_worker_journal_entries": ("gauge", ""),
    "wgkex_worker_journal_failures": ("counter", ""),
    "wgkex_worker_journal_up": ("gauge", ""),
    "wgkex_worker_journal_write_duration_seconds": ("histogram", ""),
    "wgkex_worker_key_propagation_seconds": ("histogram", ""),
    "wgkex_worker_message_rejections": ("counter", "reason"),
    "wgkex_worker_messages_deduplicated": ("counter", "domain"),
    "wgkex_worker_messages_received": ("counter", "domain"),
    "wgkex_worker_netlink_operation_duration_seconds": ("histogram", "operation"),
    "wgkex_worker_netlink_operation_failures": ("counter", "error operation"),
    "wgkex_worker_netlink_operations": ("counter", "operation"),
    "wgkex_worker_newest_handshake_timestamp_seconds": ("gauge", "domain"),
    "wgkex_worker_peer_handshake_age_seconds": ("gaugehistogram", "domain"),
    "wgkex_worker_peer_install_failures": ("counter", "domain"),
    "wgkex_worker_peer_series_suppressed": ("gauge", "domain"),
    "wgkex_worker_peer_sessions_started": ("counter", "domain"),
    "wgkex_worker_peers": ("gauge", "domain state"),
    "wgkex_worker_draining": ("gauge", ""),
    "wgkex_worker_peers_adopted": ("counter", "domain"),
    "wgkex_worker_peers_evicted": ("counter", "domain"),
    "wgkex_worker_peers_installed": ("counter", "domain"),
    "wgkex_worker_peers_limit": ("gauge", "domain"),
    "wgkex_worker_peers_removed": ("counter", "domain reason"),
    "wgkex_worker_peers_restored": ("counter", "domain"),
    "wgkex_worker_queue_capacity": ("gauge", ""),
    "wgkex_worker_queue_length": ("gauge", ""),
    "wgkex_worker_receipt_failures": ("counter", ""),
    "wgkex_worker_receipts": ("counter", "result"),
    "wgkex_worker_routes": ("gauge", "domain"),
    "wireguard_peer_info": ("gauge", "interface name public_key"),
    "wireguard_peer_last_handshake_timestamp_seconds": ("gauge", "interface public_key"),
    "wireguard_peer_receive_bytes": ("counter", "interface public_key"),
    "wireguard_peer_transmit_bytes": ("counter", "interface public_key"),
}
# These have no series before the first handshake, or without TLS.
ABSENT_AT_FIRST: Final = frozenset(
    (
        "wgkex_mqtt_certificate_expiry_timestamp_seconds",
        "wgkex_worker_newest_handshake_timestamp_seconds",
        "wireguard_peer_last_handshake_timestamp_seconds",
    )
)
ENDINGS: Final = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_count", "_sum"),
    "gaugehistogram": ("_bucket", "_gcount", "_gsum"),
}


@pytest.fixture
async def system(bench: Bench, mosquitto: Mosquitto) -> System:
    return await start_system(bench, mosquitto)


def families(registry: CollectorRegistry) -> dict[str, str]:
    """The types of all metrics in a registry, by name."""
    return {family.name: family.type for family in registry.collect()}


async def test_the_tables_of_this_file_name_every_metric_of_both_processes(mosquitto: Mosquitto) -> None:
    config = configuration(mosquitto.port, metrics={"per_peer": True})
    async with running_broker(config) as broker, running_worker(config) as worker:
        await worker.page("/metrics")
        assert families(broker.registry) == {name: kind for name, (kind, _) in BROKER.items()}
        assert families(worker.registry) == {name: kind for name, (kind, _) in WORKER.items()}


async def test_prometheus_knows_every_metric_with_its_type_and_labels(system: System) -> None:
    assert (await system.submit(2, WELT.name, NAMED)).status == 200
    await system.becomes('count(wireguard_peer_info{name="town hall"})', 1)
    for job, table in (("broker", BROKER), ("worker", WORKER)):
        metadata = await system.prometheus.get("targets/metadata", match_target=f'{{job="{job}"}}')
        assert {item["metric"]: item["type"] for item in metadata} == {name: kind for name, (kind, _) in table.items()}
        assert all(len(item["help"]) > 20 for item in metadata if item["metric"].startswith("wgkex_"))

        series = await system.prometheus.get("series", **{"match[]": f'{{job="{job}"}}'})
        labels: dict[str, set[str]] = {}
        for labelled in series:
            names = labelled.keys() - {"__name__", "job", "instance", "le"}
            labels.setdefault(labelled["__name__"], set()).add(" ".join(sorted(names)))
        scrape = {name for name in labels if name == "up" or name.startswith("scrape_")}
        assert {name: seen for name, seen in labels.items() if name not in scrape} == {
            name + ending: {names}
            for name, (kind, names) in table.items()
            if name not in ABSENT_AT_FIRST
            for ending in ENDINGS[kind]
        }


@pytest.mark.parametrize("component", ["broker", "worker"])
async def test_promtool_finds_nothing_to_say_about_a_metrics_page(
    bench: Bench, mosquitto: Mosquitto, component: str
) -> None:
    programs = await start_programs(bench, mosquitto)
    await programs.submit(2, WELT.name, new_key())
    page = await request(f"http://{programs.pages[component]}/metrics")
    assert page.headers["Content-Type"].startswith("text/plain")
    assert await asyncio.to_thread(run, "promtool", "check", "metrics", stdin=page.text) == ""
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    openmetrics = await request(f"http://{programs.pages[component]}/metrics", headers=accept)
    assert openmetrics.headers["Content-Type"].startswith("application/openmetrics-text")
    assert openmetrics.text.endswith("# EOF\n")
    for text in (page.text, openmetrics.text):
        assert not [line for line in text.splitlines() if line.split("{")[0].split(" ")[0].endswith("_created")]


async def test_no_key_and_no_stranger_gets_into_a_label(bench: Bench, mosquitto: Mosquitto) -> None:
    system = await start_system(bench, mosquitto, per_peer=False)
    key = new_key()
    await system.submit(1, WELT.name, key)
    await system.submit(1, "ffmuc_stranger", key)
    await request(f"http://{system.nodes}/ffmuc_stranger", headers={"X-Forwarded-For": "198.51.100.7"})
    mosquitto.publish("wireguard-worker/ffmuc_stranger/status", "1")
    mosquitto.publish(f"wireguard-metrics/{WELT.name}/ffmuc_stranger/connected_peers", "7")
    await system.becomes('wgkex_broker_worker_peers{worker="unknown",domain="ffmuc_welt"}', 7)
    series = json.dumps(await system.prometheus.get("series", **{"match[]": '{job=~".+"}'}))
    for secret in (str(key), "ffmuc_stranger", "198.51.100.7", base64.b64encode(key.raw).decode()[:20]):
        assert secret not in series
