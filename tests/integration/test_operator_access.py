"""TLS and passwords of the operators' listener, with real certificates and a real Prometheus."""

import asyncio
import json
import ssl
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import bcrypt
import pytest
import yaml

from tests.helpers import ROOT
from tests.integration.certificates import Certificates
from tests.integration.inprocess import settings
from tests.integration.loopback import LOOPBACK, TIMEOUT, eventually, eventually_answered
from tests.integration.servers import Bench, Mosquitto, Program

PASSWORD: Final = "correct horse"


def web_file(folder: Path, certificates: Certificates, server: Path | None = None, **tls: object) -> Path:
    pem = str(server or certificates.server)
    path = folder / "web.yaml"
    document = {
        "tls_server_config": {"cert_file": pem, "key_file": pem, **tls},
        "basic_auth_users": {"prometheus": bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(10)).decode()},
    }
    path.write_text(json.dumps(document))  # JSON is YAML
    return path


def curl(port: str, *options: str, path: str = "/-/healthy", host: str = LOOPBACK) -> tuple[int, str]:
    """The status of the command and what it prints: the HTTP status behind the body."""
    command = ("curl", "-sS", "--noproxy", "*", "-m", str(TIMEOUT), "-w", "%{http_code}", *options)
    done = subprocess.run(
        (*command, f"https://{host}:{port}{path}"), capture_output=True, text=True, check=False, timeout=TIMEOUT
    )
    return done.returncode, done.stdout + done.stderr


async def listener(program: Program, event: str) -> str:
    """The port of its operators' listener."""
    return str((await program.logs(event))["metrics"]).rpartition(":")[2]


@pytest.mark.parametrize("command", ["broker", "worker"])
async def test_prometheus_scrapes_with_tls_and_password_as_documented(
    bench: Bench, mosquitto: Mosquitto, certificates: Certificates, tmp_path: Path, command: str
) -> None:
    web = web_file(tmp_path, certificates)
    program = bench.wgkex(command, settings(mosquitto.port), "--web.config.file", str(web))
    port = await listener(program, f"{command}_started")
    password = tmp_path / "password"
    password.write_text(PASSWORD)

    [documented] = [
        job
        for block in (ROOT / "docs" / "monitoring.md").read_text().split("```yaml\n")[1:]
        for job in yaml.safe_load(block.partition("```")[0]).get("scrape_configs", [])
        if "basic_auth" in job
    ]
    scrape = json.loads(
        json.dumps({key: value for key, value in documented.items() if key not in ("job_name", "static_configs")})
        .replace("/etc/prometheus/wgkex-ca.pem", str(certificates.authority))
        .replace("/etc/prometheus/wgkex-password", str(password))
    )
    prometheus = await bench.prometheus({"wgkex": f"{LOOPBACK}:{port}"}, scrape=scrape)

    async def up(job: str) -> bool:
        return await prometheus.scalar(f'up{{job="{job}"}}') == 1

    await eventually_answered(lambda: up("wgkex"), "a scrape")
    assert await prometheus.scalar(f'wgkex_build_info{{component="{command}"}}') == 1


@pytest.mark.parametrize(
    "without", [{"basic_auth": {"username": "prometheus", "password": "wrong"}}, {"scheme": "http"}, {"tls_config": {}}]
)
async def test_prometheus_gets_nothing_without_one_of_them(
    bench: Bench, mosquitto: Mosquitto, certificates: Certificates, tmp_path: Path, without: Mapping[str, Any]
) -> None:
    program = bench.wgkex(
        "worker", settings(mosquitto.port), "--web.config.file", str(web_file(tmp_path, certificates))
    )
    port = await listener(program, "worker_started")
    scrape = {
        "scheme": "https",
        "tls_config": {"ca_file": str(certificates.authority)},
        "basic_auth": {"username": "prometheus", "password": PASSWORD},
        **without,
    }
    prometheus = await bench.prometheus({"wgkex": f"{LOOPBACK}:{port}"}, scrape=scrape)

    async def down() -> bool:
        return await prometheus.scalar("up") == 0

    await eventually_answered(down, "a scrape that failed")


async def test_a_renewed_certificate_and_authority_are_used_without_a_restart(
    bench: Bench, mosquitto: Mosquitto, certificates: Certificates, tmp_path: Path
) -> None:
    pem, authority = tmp_path / "server.pem", tmp_path / "clients.pem"
    certificates.renew_server(pem, days=3)
    authority.write_text(certificates.other_authority.read_text())
    web = web_file(
        tmp_path,
        certificates,
        pem,
        client_auth_type="RequireAndVerifyClientCert",
        client_ca_file=str(authority),
        min_version="TLS13",
    )
    program = bench.wgkex("worker", settings(mosquitto.port), "--web.config.file", str(web))
    port = await listener(program, "worker_started")
    trust = ("--cacert", str(certificates.authority), "-u", f"prometheus:{PASSWORD}")
    client = ("--cert", str(certificates.client))

    # No certificate, that of another authority, and an old version of TLS.
    for options in ((), client, (*client, "--tls-max", "1.2")):
        assert curl(port, *trust, *options)[0] != 0
    authority.write_text(certificates.authority.read_text())
    assert curl(port, *trust, *client) == (0, "healthy\n200")
    assert curl(port, "--cacert", str(certificates.authority), *client, path="/metrics")[1].endswith("401")

    async def served() -> str:
        _reader, writer = await asyncio.open_connection(LOOPBACK, int(port), ssl=context)
        shown = writer.get_extra_info("peercert")["notAfter"]
        writer.close()
        await writer.wait_closed()
        return str(shown)

    context = ssl.create_default_context(cafile=certificates.authority)
    context.load_cert_chain(certificates.client)
    before = await served()
    # Written in two steps, as by a program that knows no rename.
    content = pem.read_text()
    pem.write_text(content[: len(content) // 2])
    assert await served() == before
    await program.logs("web_config_rejected")
    certificates.renew_server(pem, days=90)
    assert await served() != before
    await eventually(lambda: program.logged("web_config_read"), "the log of a new certificate")


@pytest.mark.parametrize("command", ["broker", "worker", "probe"])
@pytest.mark.parametrize("by", ["option", "setting"])
async def test_check_config_reads_the_web_configuration_and_its_certificates(
    bench: Bench, certificates: Certificates, tmp_path: Path, command: str, by: str
) -> None:
    web = web_file(tmp_path, certificates)
    listen = {"metrics_listen": {"web_config_file": str(web)}}
    document = settings(1883, **({command: listen} if by == "setting" else {}))
    options = ("--web.config.file", str(web)) if by == "option" else ()
    good = bench.wgkex(command, document, "--check-config", *options)
    assert await good.process.ended() == 0
    assert good.process.output == "The configuration is fine.\n"
    # A key that belongs to another certificate.
    web_file(tmp_path, certificates, key_file=str(certificates.client))
    bad = bench.wgkex(command, document, "--check-config", *options)
    assert await bad.process.ended() == 2
    assert bad.process.output.startswith(f"{web}: tls_server_config: its files cannot be used: ")
