"""TLS between a session and a real MQTT server: certificates, their errors, and their renewal."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.integration.certificates import Certificates, valid_until
from tests.integration.inprocess import client
from tests.integration.loopback import eventually
from tests.integration.servers import Bench, Mosquitto
from tests.integration.sessions import VERSIONS, only_failure, tls_settings


@VERSIONS
async def test_tls_with_a_client_certificate_works(bench: Bench, certificates: Certificates, version: str) -> None:
    server = await bench.mosquitto(*tls_settings(certificates, "require_certificate true"))
    tls = {"ca_file": certificates.authority, "cert_file": certificates.client}
    async with client(server.port, version=version, tls=tls, subscriptions=["some/+"]) as tester:
        await tester.publish("some/topic", b"x" * 65_536)
        assert (await tester.next()).payload == b"x" * 65_536
    await eventually(lambda: "Received DISCONNECT from tester" in server.output, "a DISCONNECT")


@VERSIONS
async def test_a_server_that_wants_a_certificate_of_ours_is_logged_with_a_hint(
    bench: Bench, certificates: Certificates, version: str
) -> None:
    server = await bench.mosquitto(*tls_settings(certificates, "require_certificate true"))
    with capture_logs() as logs:
        tls = {"ca_file": certificates.authority}
        async with client(server.port, connected=False, version=version, tls=tls) as tester:
            await tester.failed("closed", times=2)
    assert "mqtt.tls.cert_file" in only_failure(logs)["detail"]


@VERSIONS
async def test_a_server_of_another_authority_gets_no_connect(
    bench: Bench, certificates: Certificates, version: str
) -> None:
    server = await bench.mosquitto(*tls_settings(certificates))
    tls = {"ca_file": certificates.other_authority}
    async with client(server.port, connected=False, version=version, tls=tls) as tester:
        await tester.failed("tls", times=2)
    assert server.connects_of("tester") == 0


async def test_a_certificate_for_another_name_is_not_trusted(bench: Bench, certificates: Certificates) -> None:
    server = await bench.mosquitto(*tls_settings(certificates))
    tls = {"ca_file": certificates.authority}
    async with client(server.port, connected=False, broker_url="localhost", tls=tls) as tester:
        await tester.failed("tls", times=2)


async def test_without_verification_any_certificate_is_accepted(bench: Bench, certificates: Certificates) -> None:
    server = await bench.mosquitto(*tls_settings(certificates))
    async with client(server.port, tls={"verify": False}) as tester:
        await tester.publish("some/topic", retain=True)


async def test_the_systems_authorities_do_not_include_a_private_one(bench: Bench, certificates: Certificates) -> None:
    server = await bench.mosquitto(*tls_settings(certificates))
    async with client(server.port, connected=False, tls=True) as tester:
        await tester.failed("tls")


async def test_a_server_without_tls_is_a_failure(mosquitto: Mosquitto) -> None:
    async with client(mosquitto.port, connected=False, tls={"verify": False}) as tester:
        await eventually(
            lambda: sum(
                tester.metric("connection_failures_total", reason=reason) for reason in ("tls", "unreachable", "closed")
            ),
            "a failure",
        )
        assert tester.metric("connected") == 0


EXPIRY = "certificate_expiry_timestamp_seconds"


@pytest.mark.parametrize("verify", [True, False])
async def test_the_expiry_of_the_servers_certificate_is_shown(
    bench: Bench, certificates: Certificates, verify: bool
) -> None:
    server = await bench.mosquitto(*tls_settings(certificates))
    tls = {"ca_file": certificates.authority, "verify": verify}
    async with client(server.port, tls=tls) as tester:
        assert tester.metric(EXPIRY) == valid_until(certificates.server)


async def test_without_tls_there_is_no_expiry(mosquitto: Mosquitto) -> None:
    async with client(mosquitto.port) as tester:
        assert tester.find(EXPIRY) is None


async def test_a_renewed_certificate_is_shown_after_a_reconnect(
    bench: Bench, certificates: Certificates, tmp_path: Path
) -> None:
    pem = tmp_path / "server.pem"
    certificates.renew_server(pem, days=3)
    server = await bench.mosquitto(*tls_settings(certificates, server=pem))
    async with client(server.port, connected=False, tls={"ca_file": certificates.authority}) as tester:
        await tester.connection_after(0)
        before = tester.metric(EXPIRY)
        assert before == valid_until(pem)
        await server.stop()
        await tester.failed("unreachable")
        # While the server is away, there is nothing newer to know.
        assert tester.metric(EXPIRY) == before
        certificates.renew_server(pem, days=90)
        await server.start()
        await tester.connection_after(1)
        assert tester.metric(EXPIRY) == valid_until(pem) > before + 80 * 86_400


async def test_a_certificate_that_is_not_trusted_is_not_shown(bench: Bench, certificates: Certificates) -> None:
    server = await bench.mosquitto(*tls_settings(certificates))
    async with client(server.port, connected=False, tls={"ca_file": certificates.other_authority}) as tester:
        await tester.failed("tls")
        assert tester.find(EXPIRY) is None


@pytest.mark.parametrize("damage", ["gone", "incomplete"])
async def test_a_certificate_that_is_damaged_while_running_is_waited_for(
    bench: Bench, certificates: Certificates, tmp_path: Path, damage: str
) -> None:
    server = await bench.mosquitto(*tls_settings(certificates, "require_certificate true"))
    certificate = tmp_path / "renewed.pem"
    content = certificates.client.read_text()
    certificate.write_text(content)
    async with client(
        server.port, connected=False, tls={"ca_file": certificates.authority, "cert_file": certificate}
    ) as tester:
        await tester.connection_after(0)
        if damage == "gone":
            certificate.unlink()
        else:
            certificate.write_text(content[: len(content) // 2])
        await server.restart()
        await tester.failed("tls")
        certificate.write_text(content)
        await tester.connection_after(1)
