"""What the metrics of a running process mean."""

from pathlib import Path

import pytest

from tests.integration.inprocess import configuration
from wgkex_ops.config import Listen
from wgkex_ops.consumer.upkeep.journal_file import FILE, JournalFile
from wgkex_ops.doctor.bus import check_bus
from wgkex_ops.doctor.clock import check_certificate
from wgkex_ops.doctor.configuration import check_key_lists
from wgkex_ops.doctor.findings import Finding, ok, warning, worst
from wgkex_ops.doctor.gateways import check_gateways
from wgkex_ops.doctor.host import Host
from wgkex_ops.doctor.process import Metrics, Presence, Process, check_version
from wgkex_ops.doctor.state import check_state
from wgkex_ops.model.fleet import Severity


def process(role: str, *lines: str) -> Process:
    """One that runs on this host, and shows these samples."""
    metrics = Metrics.parse("".join(f"{line}\n" for line in lines))
    return Process(role, Listen(port=9690), Presence.OURS, metrics=metrics)


def the_only(findings: list[Finding], severity: Severity, text: str, remedy: str) -> None:
    [finding] = findings
    assert (finding.severity, finding.text) == (severity, text)
    assert remedy in finding.remedy


def test_gateways_that_are_away_and_gateways_that_confirm_nothing() -> None:
    samples = (
        'wgkex_broker_worker_online{worker="gw01"} 1',
        'wgkex_broker_worker_online{worker="gw02"} 0',
        'wgkex_broker_worker_online{worker="gw03"} 1',
        'wgkex_broker_worker_confirming{worker="gw01"} 1',
        'wgkex_broker_worker_confirming{worker="gw02"} 0',
        'wgkex_broker_worker_confirming{worker="gw03"} 0',
        'wgkex_broker_keys_published_total{domain="ffmuc_welt"} 20',
        'wgkex_broker_key_install_duration_seconds_count{worker="gw01"} 19',
    )
    offline, silent = check_gateways(process("broker", *samples))
    the_only([offline], Severity.WARNING, "offline: gw02", "wgkex-ops doctor worker there")
    text = "no receipts for the latest keys from gw03: version 2 sends nobody there"
    the_only([silent], Severity.CRITICAL, text, "wgkex.acl")


def test_gateways_that_confirm_are_green_and_a_label_of_nobody_is_no_gateway() -> None:
    samples = (
        'wgkex_broker_worker_online{worker="gw01"} 1',
        'wgkex_broker_worker_online{worker="unknown"} 0',
        'wgkex_broker_worker_confirming{worker="gw01"} 1',
        'wgkex_broker_keys_published_total{domain="ffmuc_welt"} 20',
        'wgkex_broker_key_install_failures_total{worker="gw01"} 1',
    )
    the_only(check_gateways(process("broker", *samples)), Severity.OK, "online: gw01", "")


def test_a_worker_that_was_not_restarted_after_an_upgrade() -> None:
    build = 'wgkex_build_info{component="worker",version="0.0.1",revision="abc"} 1'
    [finding] = check_version(process("worker", build))
    assert finding.severity is Severity.WARNING
    assert finding.text.startswith("version 0.0.1 abc runs, and ")
    assert finding.remedy == "systemctl restart wgkex-worker"


def test_a_journal_that_cannot_be_written() -> None:
    found = check_state(configuration(1883), process("worker", "wgkex_worker_journal_up 0"), Host())
    assert [finding.severity for finding in found] == [Severity.CRITICAL]
    assert "journalctl -u wgkex-worker" in found[0].remedy


def test_a_journal_whose_damage_is_no_text(tmp_path: Path) -> None:
    file = JournalFile(tmp_path)
    file.open()
    file.close()
    path = tmp_path / FILE
    # SQLite's message quotes what it cannot read there.
    path.write_bytes(path.read_bytes().replace(b"CREATE TABLE peers", b"CREATE T\xff\xfe\xfd\xfc peers"))
    config = configuration(1883, worker={"state_dir": str(tmp_path)})
    [finding] = check_state(config, process("worker"), Host())
    assert finding.severity == Severity.CRITICAL
    assert f"the journal {path} is damaged" in finding.text


def test_key_lists_that_the_process_could_not_read(tmp_path: Path) -> None:
    lists = tmp_path / "keys.yaml"
    lists.write_text("denied: []\n")
    config = configuration(1883, key_lists=str(lists))
    running = process("broker", "wgkex_key_list_last_reload_successful 0")
    text = f"the broker could not read {lists}: its former key lists count"
    the_only(check_key_lists(config, running), Severity.CRITICAL, text, "systemctl reload wgkex-broker")


@pytest.mark.parametrize(("published", "severity"), [(0, Severity.CRITICAL), (7, Severity.WARNING)])
async def test_keys_that_the_access_rules_refused(published: int, severity: Severity) -> None:
    samples = (
        "wgkex_mqtt_connected 1",
        f'wgkex_broker_keys_published_total{{domain="ffmuc_welt"}} {published}',
        'wgkex_broker_key_failures_total{reason="publish_refused"} 3',
        'wgkex_broker_worker_last_seen_timestamp_seconds{worker="gw01"} 1700000000',
    )
    found, expiry = await check_bus(configuration(1883), process("broker", *samples), in_use=False)
    assert expiry is None
    _, write, read = found
    text = f"the MQTT server has refused 3 keys since the start, and taken {published}"
    the_only([write], severity, text, "systemctl reload mosquitto")
    assert read.severity is Severity.OK


async def test_receipts_that_never_leave() -> None:
    samples = (
        "wgkex_mqtt_connected 1",
        "wgkex_worker_receipt_failures_total 4",
        'wgkex_worker_receipts_total{result="installed"} 0',
        'wgkex_worker_messages_received_total{domain="ffmuc_welt"} 4',
        "wgkex_mqtt_certificate_expiry_timestamp_seconds 1000",
    )
    found, expiry = await check_bus(configuration(1883, "gw04"), process("worker", *samples), in_use=True)
    assert expiry == 1000
    text = "no receipt could be sent since the start: brokers take this gateway for silent"
    the_only(found[1:2], Severity.CRITICAL, text, "write wgkex/receipts/+/gw04")
    [certificate] = check_certificate(expiry)
    assert certificate.severity is Severity.CRITICAL


def test_the_worst_severity_counts_and_a_text_from_elsewhere_does_nothing_to_a_terminal() -> None:
    assert worst([]) is Severity.OK
    assert worst([ok("clock", "x"), warning("clock", "y", "z")]) is Severity.WARNING
    assert ok("clock", "a\x1b[31m\nb").text == "a [31m b"
    assert len(ok("clock", "x" * 1000).text) == 300
