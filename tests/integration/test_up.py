"""`wgkex-ops up`: everything in one process, and the commands that its banner shows."""

import asyncio
import contextlib
import json
import os
import pty
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from tests.integration.certificates import make_certificates
from tests.integration.loopback import LOOPBACK, TIMEOUT, eventually, eventually_answered, free_port, request, run
from tests.integration.servers import Bench, Process

FOREVER = "Ctrl-C ends it."


def demonstration(
    bench: Bench, *options: str, wanted: Mapping[str, Any] | None = None, prefix: Sequence[str] = ()
) -> Process:
    """Start `wgkex-ops up` with example domains, on free ports, or with another configuration."""
    return bench.start(bench.name("up"), *prefix, *up(bench, options, wanted))


async def on_terminal(bench: Bench, *options: str, prefix: Sequence[str]) -> tuple[asyncio.subprocess.Process, int]:
    """Start it on a terminal of 80 columns, whose other end is the descriptor."""
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(*prefix, *up(bench, options)),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "COLUMNS": "80", "LINES": "40", "TERM": "xterm", "NO_COLOR": "1"},
    )
    os.close(theirs)
    return process, ours


def up(bench: Bench, options: Sequence[str], wanted: Mapping[str, Any] | None = None) -> tuple[str, ...]:
    """The command line, with a configuration of its own."""
    config = bench.folder / f"{bench.name('up')}.yaml"
    config.write_text(json.dumps(wanted or settings()))
    return (sys.executable, "-m", "wgkex_ops", "up", "--config", str(config), *options)


def settings(*ports: int) -> dict[str, Any]:
    """A configuration with three ports, by default with free ones, and with an MQTT server that `up` has no use for."""
    found = list(ports)
    while len(found) < 3:
        if (port := free_port()) not in found:
            found.append(port)
    nodes, broker, worker = ({"host": LOOPBACK, "port": port} for port in found)
    mqtt = {"broker_url": "mqtt.invalid", "username": "somebody", "password": "secret", "tls": True}
    return {
        "domains": ["ffmuc_welt", "ffmuc_muc_cty"],
        "domain_prefixes": ["ffmuc_"],
        "mqtt": mqtt,
        "broker_listen": nodes,
        "broker": {"metrics_listen": broker},
        "worker": {"metrics_listen": worker},
    }


async def banner(process: Process) -> str:
    await eventually(lambda: not process.running or FOREVER in process.output, "the banner")
    assert process.running, process.output
    return process.output


async def test_the_addresses_and_the_command_of_the_banner_work(bench: Bench) -> None:
    process = demonstration(bench)
    (command,) = re.findall(r"^ +(wget (?:.*\n)+?)\n", await banner(process), re.MULTILINE)
    submitted = json.loads(run("env", f"no_proxy={LOOPBACK}", "sh", "-c", command))
    assert submitted["Endpoint"].keys() == {"Address", "Port", "AllowedIPs", "PublicKey"}
    pages = re.findall(r"^  (?:broker|worker) page +(http://\S+/) and /metrics$", process.output, re.MULTILINE)
    assert len(pages) == 2
    for page in pages:
        for url in (page, f"{page}metrics"):
            assert (await request(url)).status == 200
    assert "NOTHING IS INSTALLED" in process.output
    assert "simulated" not in process.output


async def test_routers_need_no_certificate_of_the_demonstration(bench: Bench) -> None:
    certificate = str(make_certificates(bench.folder).server)
    wanted = settings()
    wanted["broker_listen"]["tls"] = {"cert_file": certificate, "key_file": certificate}
    process = demonstration(bench, "--nodes", "3", wanted=wanted)
    assert "http://" in await banner(process)
    await eventually(lambda: re.search(r" [1-3] tunnels?,", process.output), "a tunnel")


async def test_the_broker_s_page_comes_first_and_can_be_opened_at_once(bench: Bench) -> None:
    process = demonstration(bench, "--log-level", "error")
    await eventually(lambda: process.output.count("\n") > 1 or not process.running, "two lines")
    found = re.match(r"\n  broker page   (http://\S+/) and", process.output)
    assert found is not None, process.output
    assert "wgkex-ops broker" in (await request(found[1])).text


async def test_simulated_nodes_get_their_tunnels(bench: Bench) -> None:
    process = demonstration(bench, "--nodes", "2", "--log-level", "info")
    found = re.search(r"worker page +(http://\S+)", await banner(process))
    assert found is not None
    metrics = f"{found[1]}metrics"

    def installed() -> set[str]:
        """Each node has one key; a node whose tunnel was short asks again."""
        return set(re.findall(r'"public_key":"(.{44})","event":"peer_installed"', process.output))

    await eventually(lambda: len(installed()) == 2, "two peers")
    page = await request(metrics)
    peers = re.findall(r"^wgkex_worker_peers\{.*\} (\S+)$", page.text, re.MULTILINE)
    assert sum(map(float, peers)) == 2

    async def meshed() -> bool:
        """Their handshakes are simulated, and so is what they exchange then."""
        name = "wgkex_worker_interface_receive_bytes_total"
        found_there = re.findall(name + r'\{.*interface="vx-.*\} (\S+)$', (await request(metrics)).text, re.MULTILINE)
        return sum(map(float, found_there)) > 0

    await eventually_answered(meshed, "traffic over VXLAN")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
async def test_a_signal_ends_everything(bench: Bench, number: signal.Signals) -> None:
    # Whatever has started these tests may have taken them away.
    process = demonstration(bench, "--nodes", "3", prefix=("env", "--default-signal=INT,HUP"))
    await banner(process)
    process.send(number)
    assert await process.ended() == 0
    assert "Traceback" not in process.output


async def test_it_ends_with_its_terminal(bench: Bench) -> None:
    """A window that is closed leaves no demonstration behind that has all ports."""
    prefix = ("env", "--default-signal=HUP", "setsid", "--ctty")
    process, ours = await on_terminal(bench, "--nodes", "3", prefix=prefix)
    shown = b""
    while b"in the last minute" not in shown:
        shown += await asyncio.to_thread(os.read, ours, 65_536)
    os.close(ours)
    # What it would still show nobody can see.
    assert await asyncio.wait_for(process.wait(), TIMEOUT) in (0, 1)


async def test_it_goes_on_after_nohup(bench: Bench) -> None:
    process = demonstration(bench, prefix=("env", "--ignore-signal=HUP"))
    await banner(process)
    process.send(signal.SIGHUP)
    page = re.search(r"broker page +(http://\S+/)", process.output)
    assert page is not None
    assert (await request(page[1])).status == 200
    process.send(signal.SIGTERM)
    assert await process.ended() == 0


async def test_a_port_in_use_gives_way_to_a_free_one(bench: Bench) -> None:
    first = demonstration(bench, wanted=settings(port := free_port()))
    await banner(first)
    second = demonstration(bench, wanted=settings(port))
    found = re.search(rf"port          another program has {port}: broker_listen has (\d+)\n", await banner(second))
    assert found is not None, second.output
    assert int(found[1]) != port
    assert (await request(f"http://{LOOPBACK}:{found[1]}/api")).status == 200
    assert second.output.count("another program has") == 1
    assert "another program has" not in first.output


async def test_nothing_is_wider_than_80_columns_however_much_there_is_to_say(bench: Bench) -> None:
    async def taken() -> int:
        """A port of five digits that another program has; the demonstration then gets one of five digits as well."""
        server = await asyncio.start_server(lambda _reader, writer: writer.close(), LOOPBACK, 0)
        stack.push_async_callback(server.wait_closed)
        stack.callback(server.close)
        port: int = server.sockets[0].getsockname()[1]
        return port

    async with contextlib.AsyncExitStack() as stack:
        wanted = settings(await taken(), await taken(), await taken())
        output = await banner(demonstration(bench, "--nodes", "10000", "--log-level", "error", wanted=wanted))
    assert output.count("another program has") == 3
    assert "10000 simulated, handshakes too" in output
    assert max(map(len, output.splitlines())) < 80


async def test_a_pipe_gets_a_line_now_and_then(bench: Bench) -> None:
    process = demonstration(bench, "--nodes", "3", "--log-level", "error")
    await banner(process)

    def lines() -> list[str]:
        return re.findall(r"^3 routers, .*$", process.output, re.MULTILINE)

    await eventually(lines, "a line")
    assert re.fullmatch(r"3 routers, \d on, \d tunnels?, \d keys? in the last minute", lines()[0]), lines()
    assert "\x1b" not in process.output


async def test_a_terminal_has_a_line_that_follows_what_happens(bench: Bench) -> None:
    """Routers boot, get their tunnels, and the line has the figures of /metrics; Ctrl-C ends it as in a pipe."""
    options = ("--nodes", "8", "--log-level", "info")
    process, ours = await on_terminal(bench, *options, prefix=("env", "--default-signal=INT"))
    shown, states, interrupted = "", [(0, 0, 0)], False
    with contextlib.suppress(OSError):  # the end of a terminal
        while piece := await asyncio.to_thread(os.read, ours, 65_536):
            shown += piece.decode(errors="replace")
            lines = re.findall(r"8 routers, (\d+) on, (\d+) tunnels?, (\d+) keys? in the last minute", shown)
            states = [(int(on), int(tunnels), int(keys)) for on, tunnels, keys in lines]
            # Six of eight boot within ten seconds.
            if not interrupted and any(tunnels >= 4 for _, tunnels, _ in states):
                process.send_signal(signal.SIGINT)
                interrupted = True
    os.close(ours)
    assert await process.wait() == 0
    assert len(set(states)) > 1
    assert all(4 <= on <= 8 and 4 <= tunnels <= keys for on, tunnels, keys in states[-1:])
    # Logs go above it.
    assert "peer_installed" in shown
    assert "Traceback" not in shown
