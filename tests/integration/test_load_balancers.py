"""The shipped configurations of load balancers, with the programs that they are for in front of two brokers."""

import asyncio
import re
import ssl
import urllib.request
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.helpers import ROOT, WELT
from tests.integration.certificates import make_certificates
from tests.integration.inprocess import RunningBroker, configuration, new_key, running_broker, running_worker, submit
from tests.integration.loopback import LOOPBACK, TIMEOUT, accepts, eventually, free_port, request, run
from tests.integration.servers import Bench, Mosquitto

ADDRESSES: Final = ("192.0.2.11:5000", "192.0.2.12:5000")
LIMIT: Final = {"burst": 30, "per_minute": 1}


@dataclass(frozen=True)
class Shipped:
    """A shipped file with other ports and paths, and the command lines that check and run it."""

    name: str
    file: Path
    check: tuple[str, ...]
    run: tuple[str, ...]


@dataclass(frozen=True)
class Balanced:
    """Two brokers behind a load balancer, of which one has no MQTT server."""

    http: int
    https: int
    broker: RunningBroker
    authority: Path

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self.http}"


def replaced(text: str, values: dict[str, str]) -> str:
    """Put values in place of what the file has for operators to change; each has to be there."""
    for pattern, value in values.items():
        text, found = re.subn(pattern, value, text)
        assert found, pattern
    return text


def haproxy(folder: Path, brokers: tuple[str, str], http: int, https: int, certificate: Path) -> Shipped:
    text = replaced(
        (ROOT / "deploy" / "haproxy" / "wgkex.cfg").read_text(),
        {
            r":::80 v4v6": f"{LOOPBACK}:{http}",
            r":::443 v4v6": f"{LOOPBACK}:{https}",
            r"/etc/haproxy/wgkex\.pem": str(certificate),
            **{re.escape(address): broker for address, broker in zip(ADDRESSES, brokers, strict=True)},
        },
    )
    file = folder / "haproxy.cfg"
    file.write_text(text)
    return Shipped("haproxy", file, ("haproxy", "-c", "-f", str(file)), ("haproxy", "-db", "-f", str(file)))


def nginx(folder: Path, brokers: tuple[str, str], http: int, https: int, certificate: Path) -> Shipped:
    text = replaced(
        (ROOT / "deploy" / "nginx" / "wgkex.conf").read_text(),
        {
            r"listen 80;": f"listen {LOOPBACK}:{http};",
            r"listen 443 ssl;": f"listen {LOOPBACK}:{https} ssl;",
            r"listen \[::\]:.*;": "",
            r"/etc/ssl/wgkex/(fullchain|privkey)\.pem": str(certificate),
            **{re.escape(address): broker for address, broker in zip(ADDRESSES, brokers, strict=True)},
        },
    )
    (folder / "wgkex.conf").write_text(text)
    file = folder / "nginx.conf"
    # What Debian's nginx.conf has around the files of conf.d.
    paths = " ".join(
        f"{kind}_temp_path {folder / kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    file.write_text(
        f"daemon off; pid {folder / 'nginx.pid'}; error_log stderr; events {{}}\n"
        f"http {{ {paths} include {folder / 'wgkex.conf'}; }}\n"
    )
    command = ("nginx", "-c", str(file), "-p", str(folder), "-e", "stderr")
    return Shipped("nginx", file, (*command, "-t"), command)


@pytest.fixture(params=[haproxy, nginx], ids=["haproxy", "nginx"])
async def balanced(
    request: pytest.FixtureRequest, bench: Bench, mosquitto: Mosquitto, tmp_path: Path
) -> AsyncIterator[Balanced]:
    certificates = make_certificates(tmp_path)
    http, https = free_port(), free_port()
    async with AsyncExitStack() as stack:
        config = configuration(mosquitto.port, limits={"network": LIMIT})
        await stack.enter_async_context(running_worker(config))
        working = await stack.enter_async_context(running_broker(config))
        config = configuration(free_port(), "gw02")
        away = await stack.enter_async_context(running_broker(config, connected=False))
        shipped: Shipped = request.param(
            tmp_path, (str(away.nodes), str(working.nodes)), http, https, certificates.server
        )
        run(*shipped.check)
        process = bench.start(shipped.name, *shipped.run)
        await eventually(lambda: accepts(http) or not process.running, "a load balancer that listens")
        assert process.running, process.output
        yield Balanced(http, https, working, certificates.authority)


async def test_nodes_are_served_while_a_broker_cannot(balanced: Balanced) -> None:
    statuses = [(await submit(balanced.address, 1, WELT.name, new_key())).status for _ in range(20)]
    assert statuses == [200] * 20


async def test_limits_count_by_client_whatever_it_says_of_itself(balanced: Balanced) -> None:
    body = f'{{"domain": "{WELT.name}", "public_key": "{new_key()}"}}'.encode()
    statuses = [
        (
            await request(
                f"http://{balanced.address}/api/v1/wg/key/exchange", body, {"X-Forwarded-For": f"198.51.100.{number}"}
            )
        ).status
        for number in range(LIMIT["burst"] + 1)
    ]
    assert statuses.count(200) == LIMIT["burst"]
    assert statuses[-1] == 429


async def test_tls_ends_at_the_load_balancer(balanced: Balanced) -> None:
    context = ssl.create_default_context(cafile=str(balanced.authority))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    body = f'{{"domain": "{WELT.name}", "public_key": "{new_key()}"}}'.encode()
    url = f"https://{LOOPBACK}:{balanced.https}/api/v1/wg/key/exchange"
    with await asyncio.to_thread(opener.open, url, body, TIMEOUT) as response:
        assert response.status == 200
