"""What breaks slowly, at real processes: a wrong clock, a certificate that expires, file descriptors that run out."""

import contextlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from alerts.rules import document
from tests.helpers import connection, read_answer, request
from tests.integration.certificates import make_certificates
from tests.integration.inprocess import settings
from tests.integration.loopback import LOOPBACK, eventually_answered, free_port
from tests.integration.servers import Bench, Mosquitto, Program, Prometheus
from tests.integration.watched import ALERT_TIMEOUT, INTERVAL, RULES
from wgkex_ops.config import Listen

pytestmark = pytest.mark.timeout(300)

# The program of this name would be a parent that is killed, and leave its child.
[FAKETIME] = Path("/usr/lib").glob("*/faketime/libfaketime.so.1")


def start(bench: Bench, command: str, document: Mapping[str, Any], *prefix: str) -> Program:
    """Start a program of ours under another one."""
    name = bench.name(command)
    config = bench.folder / f"{name}.yaml"
    config.write_text(json.dumps(document))
    program = (sys.executable, "-m", "wgkex_ops", command, "--config", str(config))
    return Program(bench.start(name, *prefix, *program))


def pages(document: Mapping[str, Any], command: str) -> str:
    listen = document[command]["metrics_listen"]
    return f"{listen['host']}:{listen['port']}"


def places(port: int, **mqtt: object) -> dict[str, Any]:
    return settings(
        port,
        broker_listen={"host": LOOPBACK, "port": free_port()},
        broker={"metrics_listen": {"host": LOOPBACK, "port": free_port()}},
        worker={"metrics_listen": {"host": LOOPBACK, "port": free_port()}},
        mqtt=mqtt,
    )


async def watch(bench: Bench, document_: Mapping[str, Any]) -> Prometheus:
    targets = {RULES.broker_job: pages(document_, "broker"), RULES.worker_job: pages(document_, "worker")}
    return await bench.prometheus(targets, interval=INTERVAL, rules=document(RULES))


async def fires(prometheus: Prometheus, alert: str) -> set[tuple[str, str]]:
    """Wait for an alert; the severity and the job of each."""
    query = f'ALERTS{{alertname="{alert}", alertstate="firing"}}'
    found: set[tuple[str, str]] = set()

    async def fires() -> bool:
        data = await prometheus.get("query", query=query)
        found.update((item["metric"]["severity"], item["metric"].get("job", "")) for item in data["result"])
        return bool(found)

    await eventually_answered(fires, alert, ALERT_TIMEOUT)
    return found


async def test_clock_that_is_an_hour_ahead_is_an_alert(bench: Bench, mosquitto: Mosquitto) -> None:
    document_ = places(mosquitto.port)
    # Only the time of day is a lie, as on a host whose NTP is lost.
    fake = ("FAKETIME=+1h", "FAKETIME_DONT_FAKE_MONOTONIC=1")
    worker = start(bench, "worker", document_, "env", f"LD_PRELOAD={FAKETIME}", *fake)
    broker = start(bench, "broker", document_)
    await worker.logs("worker_announced")
    await broker.logs("broker_started")
    prometheus = await watch(bench, document_)
    assert await fires(prometheus, "WgkexClockSkewed") == {("warning", RULES.worker_job)}


async def test_certificate_that_expires_in_ten_days_is_an_alert(bench: Bench, tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)
    shown = tmp_path / "shown.pem"
    certificates.renew_server(shown, days=10)
    server = await bench.mosquitto(f"cafile {certificates.authority}", f"certfile {shown}", f"keyfile {shown}")
    document_ = places(server.port, tls={"ca_file": str(certificates.authority)})
    worker, broker = start(bench, "worker", document_), start(bench, "broker", document_)
    await worker.logs("worker_announced")
    await broker.logs("mqtt_connected")
    prometheus = await watch(bench, document_)
    found = await fires(prometheus, "WgkexMQTTCertificateExpires")
    assert {severity for severity, _ in found} == {"warning"}


async def test_file_descriptors_that_run_out_are_an_alert(bench: Bench, mosquitto: Mosquitto) -> None:
    document_ = places(mosquitto.port)
    worker = start(bench, "worker", document_)
    # The connections of routers leave 224 of them to all else; here that is what fills them.
    broker = start(bench, "broker", document_, "prlimit", "--nofile=80:80")
    await worker.logs("worker_announced")
    await broker.logs("mqtt_connected")
    prometheus = await watch(bench, document_)
    async with contextlib.AsyncExitStack() as held:
        listen = Listen(**document_["broker"]["metrics_listen"])
        for _ in range(60):
            reader, writer = await held.enter_async_context(connection(listen))
            # Until its first request, a connection is not kept for long.
            writer.write(request("GET", "/-/healthy", close=False))
            await read_answer(reader)
        assert await fires(prometheus, "WgkexFileDescriptorsLow") == {("warning", RULES.broker_job)}
