"""The canary with a real broker, worker and MQTT server, where it needs no WireGuard; tests/kernel/ has the rest."""

import asyncio
import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from tests import helpers
from tests.canary import FakeTunnels
from tests.fakes import run_in_virtual_time
from tests.helpers import CITY, KEY, WELT
from tests.integration.inprocess import (
    Running,
    RunningBroker,
    RunningWorker,
    configuration,
    running_broker,
    running_worker,
    settings,
)
from tests.integration.loopback import LOOPBACK, TIMEOUT, eventually, free_port
from tests.integration.servers import Bench, Mosquitto
from tests.manager import Manager
from wgkex_ops.bus.messages import Endpoint
from wgkex_ops.canary import Canary, run, run_once
from wgkex_ops.config import Config
from wgkex_ops.errors import CannotProbeError, RoundFailedError
from wgkex_ops.metrics.build import new_registry
from wgkex_ops.model.keys import PublicKey
from wgkex_ops.model.rounds import PHASES
from wgkex_ops.probe.choice import Choice
from wgkex_ops.probe.keys import PrivateKey
from wgkex_ops.probe.rounds import Tunnel
from wgkex_ops.supervisor import Supervisor


@contextlib.asynccontextmanager
async def both(port: int, **changes: str) -> AsyncIterator[tuple[Config, RunningBroker, RunningWorker]]:
    config = configuration(port, **changes)
    async with running_worker(config) as worker, running_broker(config) as broker:
        yield config, broker, worker


def choice(config: Config, broker: RunningBroker, folder: Path) -> Choice:
    return Choice(f"http://{broker.nodes}", folder, config.domains, interval=10)


@contextlib.asynccontextmanager
async def running_canary(config: Config, chosen: Choice, tunnels: FakeTunnels) -> AsyncIterator[Running]:
    registry = new_registry("probe")
    async with Canary(anywhere(config), chosen, registry, tunnels).running() as listen:
        yield Running(listen, registry)


def public_keys(folder: Path) -> set[PublicKey]:
    """Of the canary that has its keys in a folder."""
    return {PrivateKey(base64.b64decode(path.read_text())).public_key() for path in folder.glob("*.key")}


async def test_a_round_gets_the_gateway_that_nodes_get_and_its_key_is_installed(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    async with both(mosquitto.port) as (config, broker, worker):
        tunnels = FakeTunnels()
        rounds = await run_once(config, choice(config, broker, tmp_path), tunnels)
        assert [(done.domain, done.gateway, done.failure) for done in rounds] == [
            (WELT.name, "gw01.example.net", ""),
            (CITY.name, "gw01.example.net", ""),
        ]
        assert all(list(done.durations) == list(PHASES) for done in rounds)
        keys = public_keys(tmp_path)
        assert len(keys) == 2
        installed = {
            PublicKey(peer.public_key) for domain in config.domains for peer in (await worker.state(domain)).peers
        }
        assert installed == keys
        assert tunnels.closed == 2
        # It is no node.
        assert broker.metric("wgkex_broker_key_first_requests_total", domain=WELT.name) == 0
        assert broker.metric("wgkex_broker_keys_published_total", domain=WELT.name) == 1


class NoMesh(FakeTunnels):
    """Tunnels through which nothing comes."""

    async def vxlan(self) -> None:
        raise RoundFailedError("no packet")


@pytest.mark.parametrize(
    ("tunnels", "kept"),
    [(FakeTunnels(), True), (FakeTunnels(error=RoundFailedError("no handshake")), False), (NoMesh(), True)],
    ids=["success", "no handshake", "no packet"],
)
async def test_a_key_is_used_again_only_after_a_handshake(
    mosquitto: Mosquitto, tmp_path: Path, tunnels: FakeTunnels, kept: bool
) -> None:
    async with both(mosquitto.port) as (config, broker, _):
        await run_once(config, choice(config, broker, tmp_path), tunnels)
    assert len(public_keys(tmp_path)) == (2 if kept else 0)


@pytest.mark.parametrize("given", ["gw01", "gw02"])
async def test_a_named_gateway_is_found_on_the_bus(mosquitto: Mosquitto, tmp_path: Path, given: str) -> None:
    async with both(mosquitto.port) as (config, broker, _):
        chosen = replace(choice(config, broker, tmp_path), gateway=given, domains=[WELT])
        tunnels = FakeTunnels()
        [done] = await run_once(config, chosen, tunnels)
        assert broker.metric("wgkex_broker_key_requests_total", api_version="v1", domain=WELT.name) == 1
        if given == "gw01":
            assert (done.failure, done.gateway) == ("", "gw01")
            assert [endpoint.address for endpoint in tunnels.opened] == ["gw01.example.net"]
        else:
            assert done.failed_phase == "post"
            assert done.failure.startswith("the worker gw02 has published no endpoint")


async def test_as_a_service_it_goes_round_after_round_with_metrics_and_a_page(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    async with both(mosquitto.port) as (config, broker, _):
        tunnels = FakeTunnels()
        chosen = replace(choice(config, broker, tmp_path), interval=0.2)
        async with running_canary(config, chosen, tunnels) as canary:
            await eventually(lambda: canary.metric("wgkex_probe_rounds_total", domain=WELT.name) >= 3, "three rounds")
            page = await canary.page("/metrics")
            assert f'wgkex_probe_success{{domain="{CITY.name}"}} 1.0' in page.text
            assert 'component="probe"' in page.text
            assert (await canary.page("/-/ready")).status == 200
            assert "2 of 2" in (await canary.page("/")).text

            # A handshake that never comes.
            tunnels.handshake_seconds = 1e6
            assert canary.metric("wgkex_probe_failures_total", domain=WELT.name, phase="handshake") == 0
            await eventually(lambda: canary.metric("wgkex_probe_success", domain=WELT.name) == 0, "a failure")
            assert canary.metric("wgkex_probe_failures_total", domain=WELT.name, phase="handshake") == 1
            assert "In phase handshake: no handshake with gw01.example.net" in (await canary.page("/")).text
        assert tunnels.closed == len(tunnels.opened)


async def test_before_the_first_round_it_is_not_ready_and_a_stop_takes_no_time(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    async with both(mosquitto.port) as (config, broker, _):
        tunnels = FakeTunnels(handshake_seconds=1e6)
        async with asyncio.timeout(5):
            async with running_canary(config, choice(config, broker, tmp_path), tunnels) as canary:
                ready = await canary.page("/-/ready")
                assert ready.status == 503
                assert f"no round is complete yet in {WELT.name}, {CITY.name}" in ready.text
                await eventually(lambda: len(tunnels.opened) == 2, "tunnels")
        assert tunnels.closed == 2
    # What nobody knows about is thrown away.
    assert public_keys(tmp_path) == set()


async def test_a_host_that_cannot_probe_is_noticed_at_the_start(mosquitto: Mosquitto, tmp_path: Path) -> None:
    async with both(mosquitto.port) as (config, broker, _):
        tunnels = FakeTunnels(error=CannotProbeError("CAP_NET_ADMIN is needed"))
        chosen = choice(config, broker, tmp_path)
        with pytest.raises(CannotProbeError, match="CAP_NET_ADMIN is needed"):
            async with running_canary(config, chosen, tunnels):
                pass
        assert broker.metric("wgkex_broker_keys_published_total", domain=WELT.name) == 0
        with pytest.raises(CannotProbeError, match="CAP_NET_ADMIN is needed"):
            await run_once(config, chosen, tunnels)


# --- under a service manager


def anywhere(config: Config) -> Config:
    """Serves operators on a port that the kernel chooses."""
    listen = config.probe.metrics_listen.model_copy(update={"port": 0})
    return config.model_copy(update={"probe": config.probe.model_copy(update={"metrics_listen": listen})})


async def test_beginning_and_life_are_reported(mosquitto: Mosquitto, tmp_path: Path) -> None:
    async with both(mosquitto.port) as (config, broker, _):
        with Manager() as manager:
            supervisor = Supervisor(manager.address, watchdog=1.0)
            canary = run(anywhere(config), choice(config, broker, tmp_path), supervisor, FakeTunnels())
            async with helpers.running(canary):
                await eventually(lambda: manager.values("READY") == ["1"], "ready")
                await eventually(lambda: "ready" in manager.values("STATUS"), "a status")
                await eventually(lambda: len(manager.values("WATCHDOG")) >= 3, "signs of life")


class NeverRemoved(FakeTunnels):
    """Tunnels that hang when they are removed."""

    @contextlib.asynccontextmanager
    async def open(self, endpoint: Endpoint) -> AsyncIterator[Tunnel]:
        async with super().open(endpoint) as tunnel:
            yield tunnel
            await asyncio.Event().wait()


def test_a_round_that_never_ends_is_stuck(tmp_path: Path) -> None:
    async def respond(_request: web.BaseRequest) -> web.Response:
        endpoint = {"Address": "gw01", "Port": "1", "AllowedIPs": ["fe80::1"], "PublicKey": KEY}
        return web.json_response({"Endpoint": endpoint})

    async def go() -> None:
        loop = asyncio.get_running_loop()
        config = anywhere(configuration(free_port()))
        async with serving(web.Server(respond)) as url:
            tunnels = NeverRemoved()
            canary = Canary(config, Choice(url, tmp_path, [WELT]), new_registry("probe"), tunnels)
            async with canary.running():
                await helpers.until(lambda: bool(tunnels.opened), every=0.1)
                began = loop.time()
                await helpers.until(lambda: bool(canary.stuck(30.0)), every=1.0)
                assert canary.stuck(30.0) == [f"the rounds in {WELT} are stuck"]
                # Later than the interval of 60 s, and before long.
                assert 60 < loop.time() - began < 90

    run_in_virtual_time(go(), grace=0.05)


# --- the program


class Probe:
    """Runs the program against a URL, with settings and keys of its own."""

    def __init__(self, folder: Path, mqtt_port: int, url: str) -> None:
        self.config = folder / "probe.yaml"
        self.config.write_text(json.dumps(settings(mqtt_port)))
        self.options = ("--url", url, "--domain", WELT.name, "--keys", str(folder / "keys"))

    def command(self, *options: str, without: str = "") -> list[str]:
        """The command line; `without` is a capability that root leaves behind, and that nobody else has."""
        lacks = ("setpriv", f"--bounding-set=-{without}", f"--inh-caps=-{without}", "--")
        before = lacks if without and os.geteuid() == 0 else ()
        program = (sys.executable, "-m", "wgkex_ops", "probe", "--config", str(self.config))
        return [*before, *program, *self.options, *options]

    async def run(self, *options: str, without: str = "") -> "subprocess.CompletedProcess[str]":
        command = self.command(*options, without=without)
        return await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )


@pytest.mark.parametrize(
    ("right", "options", "problem"),
    [
        ("sys_admin", (), "a network namespace cannot be made (without one: --no-namespace): CAP_SYS_ADMIN is needed"),
        ("net_admin", ("--no-namespace",), "the interface pr-welt cannot be made: CAP_NET_ADMIN is needed"),
    ],
)
async def test_a_right_that_is_missing_is_named(
    mosquitto: Mosquitto, tmp_path: Path, right: str, options: tuple[str, ...], problem: str
) -> None:
    async with both(mosquitto.port, externalName=LOOPBACK) as (_, broker, _):
        probe = Probe(tmp_path, mosquitto.port, f"http://{broker.nodes}")
        done = await probe.run("--once", *options, without=right)
        assert (done.returncode, done.stdout, done.stderr) == (3, f"WGKEX UNKNOWN - {problem}\n", "")
        # As a service, it does not begin.
        done = await probe.run(*options, without=right)
        assert (done.returncode, done.stdout) == (1, "")
        [line] = map(json.loads, done.stderr.splitlines())
        assert (line["event"], line["error"]) == ("stopped", problem)


async def test_a_broker_that_is_away_is_critical(mosquitto: Mosquitto, tmp_path: Path) -> None:
    url = f"http://{LOOPBACK}:{free_port()}"
    done = await Probe(tmp_path, mosquitto.port, url).run("--once")
    why = f"post failed: no response of the broker at {url}: Connection refused"
    assert (done.returncode, done.stdout) == (2, f"WGKEX CRITICAL - {WELT}: {why}\n")


async def test_a_broker_without_a_gateway_is_critical_with_its_reason(mosquitto: Mosquitto, tmp_path: Path) -> None:
    config = configuration(mosquitto.port)
    async with running_broker(config) as broker:
        url = f"http://{broker.nodes}"
        done = await Probe(tmp_path, mosquitto.port, url).run("--once")
    assert done.returncode == 2
    assert f"post failed: the broker at {url} refused the key: HTTP status 503, no_worker: " in done.stdout


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ('{"Message": "OK"}', "the broker's response has a Message: nodes take it for version 1, and set no gateway"),
        ("{}", "the broker's response has no Endpoint"),
        ("<html>\x1b[31m|x=1\n", "no node can read the broker's response: "),
    ],
)
async def test_a_response_that_no_node_can_use_is_critical(
    mosquitto: Mosquitto, tmp_path: Path, body: str, problem: str
) -> None:
    async def respond(_request: web.BaseRequest) -> web.Response:
        return web.Response(text=body)

    async with serving(web.Server(respond)) as url:
        done = await Probe(tmp_path, mosquitto.port, url).run("--once")
    assert done.returncode == 2
    [line] = done.stdout.splitlines()
    assert line.startswith(f"WGKEX CRITICAL - {WELT}: post failed: {problem}")
    assert line.isprintable()
    assert "|" not in line


async def test_a_signal_ends_it_as_unknown(mosquitto: Mosquitto, tmp_path: Path, bench: Bench) -> None:
    asked = asyncio.Event()

    async def never_respond(_request: web.BaseRequest) -> web.Response:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError("woken")

    async with serving(web.Server(never_respond)) as url:
        process = bench.start("once", *Probe(tmp_path, mosquitto.port, url).command("--once"))
        async with asyncio.timeout(TIMEOUT):
            await asked.wait()
        process.send(signal.SIGTERM)
        assert await process.ended() == 3
    assert process.output == "WGKEX UNKNOWN - interrupted before the end of the round\n"


@contextlib.asynccontextmanager
async def serving(server: web.Server) -> AsyncIterator[str]:
    """An HTTP server in place of a broker; its URL."""
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, LOOPBACK, 0).start()
        yield f"http://{LOOPBACK}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
