"""`wgkex-ops up`: everything in one process, and the commands that its banner shows."""

import json
import re
import shlex
import signal
import sys

import pytest

from tests.integration.loopback import LOOPBACK, eventually, eventually_answered, free_port, request, run
from tests.integration.servers import Bench, Process

FOREVER = "Ctrl-C ends it."


def demonstration(bench: Bench, *options: str, port: int | None = None) -> Process:
    """Start `wgkex-ops up` with example domains, on free ports."""
    listen = {"broker_listen": {"host": LOOPBACK, "port": port or free_port()}}
    listen |= {section: {"metrics_listen": {"host": LOOPBACK, "port": free_port()}} for section in ("broker", "worker")}
    config = bench.folder / "up.yaml"
    mqtt = {"broker_url": "mqtt.invalid", "username": "somebody", "password": "secret", "tls": True}
    domains = {"domains": ["ffmuc_welt", "ffmuc_muc_cty"], "domain_prefixes": ["ffmuc_"], "mqtt": mqtt}
    config.write_text(json.dumps(domains | listen))
    return bench.start(bench.name("up"), sys.executable, "-m", "wgkex_ops", "up", "--config", str(config), *options)


async def banner(process: Process) -> str:
    await eventually(lambda: not process.running or FOREVER in process.output, "the banner")
    assert process.running, process.output
    return process.output


async def test_the_commands_of_the_banner_work(bench: Bench) -> None:
    process = demonstration(bench)
    commands = re.findall(r"^ +(wget .*)$", await banner(process), re.MULTILINE)
    first, second = (json.loads(run(*shlex.split(command), "--no-proxy")) for command in commands)
    assert first == {"Message": "OK"}
    assert second["Endpoint"].keys() == {"Address", "Port", "AllowedIPs", "PublicKey"}
    for url in re.findall(r"(http://\S+/(?:metrics)?)(?:\s|$)", process.output):
        assert (await request(url)).status == 200
    assert "NOTHING IS INSTALLED" in process.output


async def test_simulated_nodes_get_their_tunnels(bench: Bench) -> None:
    process = demonstration(bench, "--nodes", "3", "--log-level", "info")
    found = re.search(r"worker .*metrics: (http://\S+)", await banner(process))
    assert found is not None

    def installed() -> set[str]:
        """Each node has one key; a node whose tunnel was short asks again."""
        return set(re.findall(r'"public_key":"(.{44})","event":"peer_installed"', process.output))

    await eventually(lambda: len(installed()) == 3, "three peers")
    page = await request(found[1])
    peers = re.findall(r"^wgkex_worker_peers\{.*\} (\S+)$", page.text, re.MULTILINE)
    assert sum(map(float, peers)) == 3

    async def meshed() -> bool:
        """Their handshakes are simulated, and so is what they exchange then."""
        name = "wgkex_worker_interface_receive_bytes_total"
        found_there = re.findall(name + r'\{.*interface="vx-.*\} (\S+)$', (await request(found[1])).text, re.MULTILINE)
        return sum(map(float, found_there)) > 0

    await eventually_answered(meshed, "traffic over VXLAN")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
async def test_a_signal_ends_everything(bench: Bench, number: signal.Signals) -> None:
    process = demonstration(bench, "--nodes", "3")
    await banner(process)
    process.send(number)
    assert await process.ended(within=5) == 0
    assert "Traceback" not in process.output


async def test_a_port_in_use_ends_everything(bench: Bench) -> None:
    first = demonstration(bench, port=(port := free_port()))
    await banner(first)
    second = demonstration(bench, port=port)
    assert await second.ended() == 1
    assert "another program uses this port" in second.output
    assert "Traceback" not in second.output
