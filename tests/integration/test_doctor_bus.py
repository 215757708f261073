"""`wgkex-ops doctor` and the MQTT server: what is wrong there is named, and no session of a running process ends."""

import json
import socket
from pathlib import Path
from typing import Final

import pytest

from tests.helpers import KEY, WELT
from tests.integration.certificates import Certificates
from tests.integration.commands import outcome_of
from tests.integration.examined import HASHED, Site, not_green, only, text_of
from tests.integration.gateways import gateways_known
from tests.integration.inprocess import client, new_key, running_broker, running_worker
from tests.integration.loopback import LOOPBACK, eventually, free_port
from tests.integration.servers import Bench, Mosquitto
from tests.integration.shipped import BROKER, WORKER, Server
from wgkex_ops.demo.embedded import mqtt_server
from wgkex_ops.model.fleet import Severity


@pytest.fixture
async def server(bench: Bench) -> Server:
    server = Server(bench)
    await server.start()
    return server


# --- nothing is disturbed


async def test_a_healthy_broker_and_a_healthy_worker_are_all_green(server: Server, tmp_path: Path) -> None:
    worker_site = Site(tmp_path, server.port, mqtt=server.as_user(WORKER))
    broker_site = Site(tmp_path, server.port, BROKER, mqtt=server.as_user(BROKER))
    async with running_worker(worker_site.config) as worker, running_broker(broker_site.config) as broker:
        await gateways_known(broker, WORKER)
        assert (await broker.submit(2, WELT.name, new_key())).status == 200
        await eventually(
            lambda: worker.metric("wgkex_worker_messages_received_total", domain=WELT.name), "a key that arrives"
        )
        for site, role in ((worker_site, "worker"), (broker_site, "broker")):
            # Without a role, it finds the one that runs here.
            for asked in (role, None):
                assert not_green(await site.examine(asked)) == {}
        # No second connection has ended that of a running process.
        assert [server.connects_of(name) for name in (WORKER, BROKER)] == [1, 1]


async def test_before_the_first_start_only_the_process_is_missing(server: Server, tmp_path: Path) -> None:
    site = Site(tmp_path, server.port, mqtt=server.as_user(WORKER))
    process, read = only(await site.examine("worker"), "process", "mqtt_read")
    assert process.severity is Severity.CRITICAL
    assert "systemctl start wgkex-worker" in process.remedy
    # What cannot be known is not green.
    assert read.severity is Severity.WARNING
    assert "wgkex-ops register" in read.remedy
    site = Site(tmp_path, server.port, BROKER, mqtt=server.as_user(BROKER))
    async with client(server.port, **server.as_user(BROKER)) as broker:
        # Of an earlier life.
        await broker.publish(f"wireguard-broker/{BROKER}/status", b"0", retain=True)
    only(await site.examine("broker"), "process", "mqtt_read")
    async with client(server.port, **server.as_user(WORKER)) as worker:
        await worker.publish(f"wireguard-worker/{WORKER}/status", b"0", retain=True)
    only(await site.examine("broker"), "process")


async def test_keys_that_wait_for_a_stopped_worker_still_come(server: Server, tmp_path: Path) -> None:
    site = Site(tmp_path, server.port, mqtt=server.as_user(WORKER))
    async with running_worker(site.config):
        pass
    key = new_key()
    async with client(server.port, **server.as_user(BROKER)) as broker:
        await broker.publish(f"wireguard/{WELT.name}/all", str(key).encode())
        # They prove that keys can be read.
        only(await site.examine("worker"), "process")
        only(await site.examine("worker"), "process")
        async with running_worker(site.config) as worker:
            await eventually(
                lambda: worker.metric("wgkex_worker_peers_installed_total", domain=WELT.name), "the key that waited"
            )
            assert await worker.has(WELT, key)


async def test_no_session_is_left_behind(bench: Bench, tmp_path: Path) -> None:
    mosquitto = await bench.mosquitto()
    site = Site(tmp_path, mosquitto.port)
    only(await site.examine("worker"), "process", "mqtt_read")
    log = mosquitto.output
    ids = {line.rpartition(" as ")[2].split()[0] for line in log.splitlines() if "as wgkex-doctor-" in line}
    assert len(ids) == 1
    # The last connection began anew (c1) and left nothing.
    connects = [line for line in log.splitlines() if "New client connected" in line and "wgkex-doctor" in line]
    assert ["c1" in line.rpartition("(")[2] for line in connects] == [False, True]


async def test_a_host_with_both_roles_and_one_file(server: Server, tmp_path: Path) -> None:
    users = {BROKER: server.as_user(BROKER), WORKER: server.as_user(WORKER)}
    site = Site(
        tmp_path, server.port, broker={"name": BROKER, **users[BROKER]}, worker={"name": WORKER, **users[WORKER]}
    )
    # Each is a user of its own, so that one of them can be examined while the other one is connected.
    async with running_worker(site.config) as worker:
        only(await site.examine("broker"), "process")
        async with running_broker(site.config) as broker:
            await gateways_known(broker, WORKER)
            assert (await broker.submit(2, WELT.name, new_key())).status == 200
            await eventually(
                lambda: worker.metric("wgkex_worker_messages_received_total", domain=WELT.name), "a key that arrives"
            )
            assert not_green(await site.examine(None)) == {}
        assert server.connects_of(WORKER) == 1


# --- the MQTT server


async def test_a_wrong_password(server: Server, tmp_path: Path) -> None:
    site = Site(tmp_path, server.port, mqtt={"username": WORKER, "password": "wrong-one"})
    mqtt, _ = only(await site.examine("worker"), "mqtt", "process")
    assert mqtt.severity is Severity.CRITICAL
    assert "refuses the login of gw01" in mqtt.text
    assert "mqtt.password" in mqtt.remedy
    assert "wrong-one" not in f"{mqtt}"


async def test_a_running_worker_with_an_old_password(server: Server, tmp_path: Path) -> None:
    site = Site(tmp_path, server.port, mqtt={"username": WORKER, "password": "old"})
    async with running_worker(site.config, announced=False) as worker:
        await eventually(
            lambda: worker.metric("wgkex_mqtt_connection_failures_total", reason="refused"), "a refused login"
        )
        mqtt, process = only(await site.examine("worker"), "mqtt", "process")
        assert "refuses the login" in mqtt.text
        assert "no connection with the MQTT server" in process.text
        site.document["mqtt"].update(server.as_user(WORKER))
        site.write()
        mqtt, _ = only(await site.examine("worker"), "mqtt", "process")
        assert "systemctl restart wgkex-worker" in mqtt.remedy


async def test_a_server_that_is_away(tmp_path: Path) -> None:
    site = Site(tmp_path, free_port())
    mqtt, _ = only(await site.examine("worker"), "mqtt", "process")
    assert "cannot be reached" in mqtt.text
    assert "mqtt.broker_port" in mqtt.remedy


async def test_a_server_that_never_answers(tmp_path: Path) -> None:
    with socket.create_server((LOOPBACK, 0)) as silent:
        site = Site(tmp_path, silent.getsockname()[1])
        mqtt, _ = only(await site.examine("worker"), "mqtt", "process")
    assert "mqtt.version" in f"{mqtt.text} {mqtt.remedy}"


async def test_a_server_that_knows_only_mqtt_3_1_1(tmp_path: Path) -> None:
    async with mqtt_server() as port:
        site = Site(tmp_path, port)
        mqtt, _ = only(await site.examine("worker"), "mqtt", "process")
        assert "does it know MQTT 5? (mqtt.version)" in mqtt.text
        assert "mqtt.version" in mqtt.remedy
        site = Site(tmp_path, port, mqtt={"version": "3.1.1"})
        write, *_ = only(await site.examine("worker"), "mqtt_write", "mqtt_read", "process")
    # It does not say what it refuses.
    assert write.severity is Severity.WARNING
    assert "mqtt.version" in write.remedy


async def test_a_worker_whose_listener_wants_a_password_is_left_alone(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "web.yaml"
    file.write_text(json.dumps({"basic_auth_users": {"prometheus": HASHED}}))
    listen = {"host": LOOPBACK, "port": free_port(), "web_config_file": str(file)}
    site = Site(tmp_path, server.port, mqtt=server.as_user(WORKER), worker={"metrics_listen": listen})
    async with running_worker(site.config):
        process, mqtt = only(await site.examine(None), "process", "mqtt")
        assert "wants a password" in process.text
        assert mqtt.severity is Severity.WARNING
        assert "that would end its session" in mqtt.text
        assert server.connects_of(WORKER) == 1


async def test_a_worker_whose_listener_has_tls_is_asked_by_it(
    mosquitto: Mosquitto, certificates: Certificates, tmp_path: Path
) -> None:
    file = tmp_path / "web.yaml"
    pair = {"cert_file": str(certificates.server), "key_file": str(certificates.server)}
    file.write_text(json.dumps({"tls_server_config": pair}))
    listen = {"host": LOOPBACK, "port": free_port(), "web_config_file": str(file)}
    site = Site(tmp_path, mosquitto.port, worker={"metrics_listen": listen})
    async with running_worker(site.config):
        # No key has come yet.
        findings = await site.examine("worker")
        only(findings, "mqtt_read")
        assert text_of(findings, "process") == "the worker runs and is ready"
    file.write_text(json.dumps({"tls_server_config": {**pair, "cert_file": "/nowhere"}}))
    configuration, *_ = only(await site.examine("worker"), "configuration", "process", "mqtt_read")
    assert "worker.metrics_listen.web_config_file" in configuration.remedy


async def restricted(bench: Bench, *rules: str) -> Mosquitto:
    """A server on which a worker may do what some rules say, and operators everything."""
    file = bench.folder / "rules"
    file.write_text("\n".join(("user operator", "topic readwrite #", f"user {WORKER}", *rules, "")))
    passwords = bench.folder / "passwords"
    passwords.touch()
    for user in ("operator", WORKER):
        status, _, errors = await outcome_of("mosquitto_passwd", "-b", str(passwords), user, user)
        assert status == 0, errors
    return await bench.mosquitto(f"acl_file {file}", f"password_file {passwords}")


WRITE: Final = ("topic write wireguard-worker/#", "topic write wireguard-metrics/#", "topic write wgkex/#")
AS_WORKER: Final = {"username": WORKER, "password": WORKER}


async def test_rules_that_forbid_a_worker_to_read_keys(bench: Bench, tmp_path: Path) -> None:
    mosquitto = await restricted(bench, *WRITE)
    site = Site(tmp_path, mosquitto.port, mqtt=AS_WORKER)
    async with (
        running_worker(site.config) as worker,
        client(mosquitto.port, username="operator", password="operator") as operator,
    ):
        # Mosquitto grants the subscription, and drops the key.
        await operator.publish(f"wireguard/{WELT.name}/all", KEY.encode())
        assert worker.metric("wgkex_mqtt_connected") == 1
        [read] = only(await site.examine("worker"), "mqtt_read")
    assert "not provable here" in read.text
    assert "wgkex-ops register" in read.remedy
    assert "wgkex.acl must let gw01 read wireguard/+/all" in read.remedy


async def test_rules_that_forbid_a_worker_to_write(bench: Bench, tmp_path: Path) -> None:
    mosquitto = await restricted(bench, "topic read wireguard/+/+")
    site = Site(tmp_path, mosquitto.port, mqtt=AS_WORKER)
    write, _, _ = only(await site.examine("worker"), "mqtt_write", "process", "mqtt_read")
    assert write.severity is Severity.CRITICAL
    assert "forbid gw01 to write wgkex/receipts/+/gw01" in write.text
    assert "worker.name" in write.remedy
    async with running_worker(site.config, announced=False) as worker:
        await eventually(lambda: worker.metric("wgkex_mqtt_connected"), "a connection")
        write, _, _ = only(await site.examine("worker"), "mqtt_write", "process", "mqtt_read")
    assert "does not take what this gateway announces as gw01" in write.text
    assert "wireguard-worker/gw01/#" in write.remedy


async def test_a_user_with_another_name_than_its_worker(server: Server, tmp_path: Path) -> None:
    site = Site(tmp_path, server.port, "gw09", mqtt=server.as_user(WORKER))
    write, _, _ = only(await site.examine("worker"), "mqtt_write", "process", "mqtt_read")
    assert "mqtt.username must be worker.name" in write.remedy


async def test_rules_that_forbid_a_broker_to_publish_keys(bench: Bench, tmp_path: Path) -> None:
    mosquitto = await restricted(bench, "topic read #", "topic write wireguard-broker/#")
    site = Site(tmp_path, mosquitto.port, mqtt=AS_WORKER)
    write, *_ = only(await site.examine("broker"), "mqtt_write", "process", "mqtt_read")
    assert "forbid gw01 to write wireguard/+/+" in write.text
    async with running_broker(site.config) as broker:
        assert (await broker.submit(1, WELT.name, new_key())).status == 503
        write, *_ = only(await site.examine("broker"), "mqtt_write", "mqtt_read", "gateways")
    assert write.severity is Severity.CRITICAL
    assert "has refused 1 keys" in write.text
    assert "wireguard/+/+" in write.remedy


async def tls_server(bench: Bench, certificate: Path) -> Mosquitto:
    return await bench.mosquitto(f"certfile {certificate}", f"keyfile {certificate}")


async def test_a_certificate_for_another_name_and_one_of_an_unknown_authority(
    bench: Bench, certificates: Certificates, tmp_path: Path
) -> None:
    mosquitto, plain = await tls_server(bench, certificates.server), (await bench.mosquitto()).port
    for changes, cause, remedy in (
        ({"broker_url": "localhost", "tls": {"ca_file": str(certificates.authority)}}, "another name", "broker_url"),
        ({"tls": {"ca_file": str(certificates.other_authority)}}, "not trusted", "mqtt.tls.ca_file"),
        (
            {"tls": True, "broker_port": plain},
            "ends the connection during TLS",
            "mqtt.broker_port",
        ),
    ):
        site = Site(tmp_path, mosquitto.port, mqtt=changes)
        mqtt, _ = only(await site.examine("worker"), "mqtt", "process")
        assert cause in mqtt.text
        assert remedy in mqtt.remedy


async def test_a_certificate_that_has_expired_and_one_that_will(
    bench: Bench, certificates: Certificates, tmp_path: Path
) -> None:
    soon, gone = tmp_path / "soon.pem", tmp_path / "gone.pem"
    certificates.renew_server(soon, 5)
    certificates.expired_server(gone)
    tls = {"tls": {"ca_file": str(certificates.authority)}}
    site = Site(tmp_path, (await tls_server(bench, soon)).port, mqtt=tls)
    certificate, *_ = only(await site.examine("worker"), "mqtt_certificate", "process", "mqtt_read")
    assert certificate.severity is Severity.WARNING
    assert "valid for 5 days" in certificate.text
    site = Site(tmp_path, (await tls_server(bench, gone)).port, mqtt=tls)
    mqtt, _ = only(await site.examine("worker"), "mqtt", "process")
    assert "has expired" in mqtt.text
    assert "renew it" in mqtt.remedy
