"""`wgkex-ops doctor` on hosts that are broken on purpose: it names the part and the remedy, and all else is green."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import tarfile
import time
from collections.abc import AsyncIterator
from email.utils import formatdate
from pathlib import Path

import pytest
from aiohttp import web

from tests.helpers import KEY, WELT
from tests.integration.commands import outcome_of
from tests.integration.examined import HASHED, WITHIN, Site, not_green, only, text_of
from tests.integration.gateways import gateway, gateways_known
from tests.integration.inprocess import client, new_key, running_broker, running_worker
from tests.integration.loopback import LOOPBACK, eventually, eventually_answered, free_port, request
from tests.integration.servers import Bench, Mosquitto
from wgkex_ops.doctor.host import Host
from wgkex_ops.model.fleet import Severity

# --- this host


@contextlib.asynccontextmanager
async def broker_with_clock(ahead: float) -> AsyncIterator[str]:
    """What responds as a broker whose clock is wrong; its URL."""

    async def ready(_request: web.Request) -> web.Response:
        return web.json_response({"ready": True}, headers={"Date": formatdate(time.time() + ahead, usegmt=True)})

    app = web.Application()
    app.router.add_get("/api", ready)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        port = free_port()
        await web.TCPSite(runner, LOOPBACK, port).start()
        yield f"http://{LOOPBACK}:{port}"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("ahead", "words"), [(300, "5 min behind"), (-300, "5 min ahead of"), (20, "behind"), (0, "")], ids=str
)
async def test_a_clock_that_is_wrong(mosquitto: Mosquitto, tmp_path: Path, ahead: float, words: str) -> None:
    async with broker_with_clock(ahead) as url:
        site = Site(tmp_path, mosquitto.port, probe={"url": url})
        findings = await site.examine("worker")
    if not words:
        only(findings, "process", "mqtt_read")
        assert text_of(findings, "clock").endswith(f"agrees with the broker at {url}")
        return
    clock, *_ = only(findings, "clock", "process", "mqtt_read")
    assert clock.severity is (Severity.CRITICAL if abs(ahead) > 60 else Severity.WARNING)
    assert words in clock.text
    assert "timedatectl" in clock.remedy


async def test_a_clock_without_ntp_and_a_broker_that_is_away(mosquitto: Mosquitto, tmp_path: Path) -> None:
    site = Site(tmp_path, mosquitto.port)
    site.synchronized = False
    clock, *_ = only(await site.examine("worker"), "clock", "process", "mqtt_read")
    assert (clock.severity, "NTP" in clock.remedy) == (Severity.WARNING, True)
    site = Site(tmp_path, mosquitto.port, probe={"url": f"http://{LOOPBACK}:{free_port()}"})
    clock, *_ = only(await site.examine("worker"), "clock", "process", "mqtt_read")
    assert "probe.url" in clock.remedy


async def test_a_worker_without_its_capability(bench: Bench, mosquitto: Mosquitto, tmp_path: Path) -> None:
    site = Site(tmp_path, mosquitto.port, worker={"dataplane": "kernel"})
    process = bench.start(
        "worker",
        *("setpriv", "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"),
        *(sys.executable, "-m", "wgkex_ops", "worker", "--config", str(site.file)),
    )
    listen = site.document["worker"]["metrics_listen"]

    def listens() -> bool:
        with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, listen["port"])):
            return True
        return not process.running

    await eventually(listens, "a worker that listens")
    assert process.running, process.output
    bad = {one.check: one for one in await site.examine("worker") if one.severity == Severity.CRITICAL}
    assert "no CAP_NET_ADMIN" in bad["rights"].text
    assert f"process {process.pid}" in bad["rights"].text
    assert "AmbientCapabilities=CAP_NET_ADMIN" in bad["rights"].remedy


async def test_a_state_directory_of_somebody_else(bench: Bench, mosquitto: Mosquitto, tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    site = Site(tmp_path, mosquitto.port, worker={"state_dir": str(folder)})
    # Any process of another user will do for one that is seen in /proc.
    site.file.chmod(0o644)
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    program = "import time; time.sleep(600)"
    process = bench.start(
        "worker", *nobody, "/usr/bin/python3", "-c", program, "wgkex-worker", "--config", str(site.file)
    )
    await eventually(lambda: Host().status(process.pid).get("Uid", "").startswith("65534"), "another user")
    bad = {one.check: one for one in await site.examine("worker") if one.severity == Severity.CRITICAL}
    assert "may not write in" in bad["state_dir"].text
    assert "chown -R nobody" in bad["state_dir"].remedy
    assert f"a worker runs (process {process.pid}), and does not listen" in bad["process"].text


@pytest.mark.parametrize(
    ("option", "cause", "remedy"),
    [("size=64k", "is full", "make room"), ("ro", "is read-only", "dmesg")],
    ids=("full", "read-only"),
)
async def test_a_disk_that_cannot_be_written(
    mosquitto: Mosquitto, tmp_path: Path, option: str, cause: str, remedy: str
) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    site = Site(tmp_path, mosquitto.port, worker={"state_dir": str(folder)})
    mount = f'mount -t tmpfs -o {option} none {folder} && exec "$@"'
    status, output, errors = await outcome_of(
        "unshare", "-m", "sh", "-ec", mount, "sh", *site.command("worker", "--json")
    )
    assert (status, errors) == (2, "")
    [state] = [one for one in json.loads(output)["findings"] if one["check"] == "state_dir"]
    assert state["severity"] == "critical"
    assert cause in state["text"]
    assert remedy in state["remedy"]


async def test_a_journal_that_is_damaged(mosquitto: Mosquitto, tmp_path: Path) -> None:
    site = Site(tmp_path, mosquitto.port)
    async with running_worker(site.config):
        pass
    journal = site.config.worker.state_dir / "journal.sqlite3"
    findings = await site.examine(None)
    only(findings, "process", "mqtt_read")
    assert text_of(findings, "state_dir") == f"{journal} has 0 peers"
    before = sorted(journal.parent.iterdir())
    journal.write_bytes(b"no database at all" * 1000)
    state, *_ = only(await site.examine("worker"), "state_dir", "process", "mqtt_read")
    assert "is damaged" in state.text
    assert "restart wgkex-worker" in state.remedy
    assert sorted(journal.parent.iterdir()) == before


async def test_ports_that_others_have(mosquitto: Mosquitto, tmp_path: Path) -> None:
    site = Site(tmp_path, mosquitto.port)
    metrics, public = site.document["broker"]["metrics_listen"]["port"], site.document["broker_listen"]["port"]
    async with contextlib.AsyncExitStack() as stack:
        for number in (metrics, public):
            other = await asyncio.start_server(lambda _reader, writer: writer.close(), LOOPBACK, number)
            await stack.enter_async_context(other)
        process, port, _ = only(await site.examine("broker"), "process", "port", "mqtt_read")
    assert f"(process {os.getpid()}) listens on {LOOPBACK}:{metrics}, and no broker" in process.text
    assert "broker.metrics_listen" in process.remedy
    assert f"(process {os.getpid()}) has port {public}, and is no broker" in port.text
    assert "broker_listen" in port.remedy


async def test_a_worker_that_hangs(bench: Bench, mosquitto: Mosquitto, tmp_path: Path) -> None:
    site = Site(tmp_path, mosquitto.port)
    process = bench.start("worker", sys.executable, "-m", "wgkex_ops", "worker", "--config", str(site.file))
    url = f"http://{LOOPBACK}:{site.document['worker']['metrics_listen']['port']}/-/ready"

    async def serves() -> bool:
        try:
            return (await request(url)).status == 200
        except OSError:
            return False

    await eventually_answered(serves, "a worker that serves")
    process.send(signal.SIGSTOP)
    hung, mqtt = only(await site.examine("worker"), "process", "mqtt")
    assert "it hangs" in hung.text
    assert "restart wgkex-worker" in hung.remedy
    # It may still be connected, by what the server knows.
    assert "not tried" in mqtt.text


# --- configuration and key lists


async def test_a_configuration_with_problems_shows_all_of_them(tmp_path: Path) -> None:
    site = Site(tmp_path, 1883)
    site.file.write_text("domains: []\ndomain_prefixes: [ffmuc_]\nmqtt: {broker_url: x, broker_prot: 1}\n")
    findings = await site.examine("worker")
    assert {one.severity for one in findings} == {Severity.CRITICAL}
    assert any("mqtt.broker_prot" in one.text for one in findings)
    assert any("domains" in one.text for one in findings)
    assert all("docs/configuration.md" in one.remedy for one in findings)


async def test_a_configuration_that_everybody_can_read(mosquitto: Mosquitto, tmp_path: Path) -> None:
    site = Site(tmp_path, mosquitto.port, mqtt={"username": "a", "password": "bcdefg"})
    site.file.chmod(0o644)
    configuration, *_ = only(await site.examine("worker"), "configuration", "process", "mqtt_read")
    assert (configuration.severity, configuration.remedy) == (Severity.WARNING, "chmod o-r it")


async def test_key_lists_that_cannot_be_read_and_a_key_that_is_denied(mosquitto: Mosquitto, tmp_path: Path) -> None:
    lists, key = tmp_path / "keys.yaml", new_key()
    lists.write_text(f"denied: [{{key: '{key}', name: somebody}}]\n")
    site = Site(tmp_path, mosquitto.port, key_lists=str(lists))
    async with running_worker(site.config) as worker, client(mosquitto.port) as bus:
        await bus.publish(f"wireguard/{WELT.name}/all", str(key).encode())
        await eventually(
            lambda: worker.metric("wgkex_worker_message_rejections_total", reason="denied_key"), "a denied key"
        )
        findings = await site.examine("worker")
        # That is what the operators wanted: not a warning for ever.
        assert not_green(findings) == {}
        assert "1 denied" in text_of(findings, "key_lists")
        assert "1 requests refused because of them" in text_of(findings, "key_lists")
        lists.write_text("denied: [{key: short}]\n")
        [problem] = only(await site.examine("worker"), "key_lists")
    assert problem.severity is Severity.CRITICAL
    assert "denied.0.key" in problem.text
    assert "key_lists" in problem.remedy


# --- what a broker knows


async def test_an_old_worker_and_a_load_balancer_that_names_nobody(mosquitto: Mosquitto, tmp_path: Path) -> None:
    site = Site(tmp_path, mosquitto.port)
    async with running_broker(site.config) as broker:
        gateways, *_ = only(await site.examine("broker"), "gateways", "mqtt_read", "mqtt_write")
        assert gateways.severity is Severity.CRITICAL
        assert "no gateway is online" in gateways.text
        async with gateway(mosquitto, "gw07", receipts=False):
            await gateways_known(broker, "gw07")
            for _ in range(10):
                assert (await broker.submit(1, WELT.name, new_key())).status == 200
            gateways, proxies = only(await site.examine("broker"), "gateways", "proxies")
    assert "gw07 has confirmed none of 10 keys: an old worker" in gateways.text
    assert "upgrade its worker" in gateways.remedy
    assert f"all nodes seem to come from {LOOPBACK}" in proxies.text
    assert "X-Forwarded-For" in proxies.remedy


# --- the command


async def test_the_command_for_people_and_for_programs(tmp_path: Path) -> None:
    site = Site(tmp_path, free_port())
    began = time.monotonic()
    status, output, errors = await outcome_of(*site.command("worker"))
    assert time.monotonic() - began < WITHIN
    assert (status, errors) == (2, "")
    lines = output.splitlines()
    assert all(line.split()[0] in ("ok", "warning", "critical") for line in lines)
    [mqtt] = [line for line in lines if line.split()[1] == "mqtt"]
    assert mqtt.startswith("critical  mqtt ")
    status, output, errors = await outcome_of(*site.command("worker", "--json"))
    assert (status, errors) == (2, "")
    document = json.loads(output)
    assert set(document) == {"version", "roles", "status", "findings"}
    assert (document["roles"], document["status"]) == (["worker"], "critical")
    assert all(set(one) == {"check", "role", "severity", "text", "remedy"} for one in document["findings"])
    assert {one["role"] for one in document["findings"]} == {None, "worker"}
    assert all((one["remedy"] is None) == (one["severity"] == "ok") for one in document["findings"])


async def test_a_host_without_a_sign_of_a_role(tmp_path: Path) -> None:
    site = Site(tmp_path, free_port())
    status, output, errors = await outcome_of(*site.command())
    assert (status, output) == (2, "")
    assert "wgkex-ops doctor broker, or worker" in errors


# --- the bundle


async def test_no_secret_is_in_a_bundle(mosquitto: Mosquitto, tmp_path: Path) -> None:
    lists, web, key = tmp_path / "keys.yaml", tmp_path / "web.yaml", new_key()
    lists.write_text(f"denied: [{{key: '{key}', name: 'Erika Musterfrau'}}]\n")
    web.write_text(json.dumps({"basic_auth_users": {"prometheus": HASHED}}))
    site = Site(
        tmp_path,
        mosquitto.port,
        mqtt={"username": "gw01", "password": 'of "the" bus'},
        operator={"username": "ops", "password": "of-the-operators"},
        key_lists=str(lists),
        worker={"metrics_listen": {"port": free_port(), "web_config_file": str(web)}},
        cleanup={"protected_keys": [KEY]},
    )
    bundle = tmp_path / "bundle.tar.gz"
    status, output, errors = await outcome_of(*site.command("worker", "--bundle", str(bundle)))
    assert (status, errors) == (2, "")
    assert output.endswith(f"{bundle} is for a bug report: names of hosts are in it, and no secrets.\n")
    assert bundle.stat().st_mode & 0o777 == 0o600
    with tarfile.open(bundle) as archive:
        files = {one.name: reader.read() for one in archive if (reader := archive.extractfile(one)) is not None}
    parts = {"doctor.json", "configuration.json", "versions.json"}
    assert {f"wgkex-doctor/{part}" for part in parts} <= set(files)
    everything = b"".join(name.encode() + content for name, content in files.items())
    for secret in ('of "the" bus', 'of \\"the\\" bus', "of-the-operators", HASHED, str(key), KEY, "Musterfrau"):
        assert secret.encode() not in everything
    configuration = json.loads(files["wgkex-doctor/configuration.json"])
    assert configuration["mqtt"]["password"] == "(redacted)"
    assert configuration["mqtt"]["broker_url"] == LOOPBACK
    assert configuration["domains"] == site.document["domains"]
    assert {one["check"] for one in json.loads(files["wgkex-doctor/doctor.json"])["findings"]} >= {"mqtt", "clock"}
