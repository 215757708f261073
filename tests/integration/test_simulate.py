"""`wgkex-ops simulate` against a broker, gateways and an MQTT server, and what people and programs see of it."""

import asyncio
import contextlib
import json
import os
import pty
import re
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any, Final

from tests.helpers import CITY, WELT
from tests.integration.commands import Outcome, wgkex_ops
from tests.integration.gateways import gateways_known
from tests.integration.inprocess import (
    RunningBroker,
    RunningWorker,
    configuration,
    running_broker,
    running_worker,
    settings,
)
from tests.integration.loopback import eventually, eventually_answered, free_port
from tests.integration.servers import Bench, Mosquitto

ROUTERS: Final = 300
COMMAND: Final = (sys.executable, "-m", "wgkex_ops", "simulate")


async def simulate(*arguments: str) -> Outcome:
    return await wgkex_ops("simulate", *arguments)


def summary(output: str) -> Any:  # noqa: ANN401  JSON can be anything
    return json.loads(output)


@contextlib.asynccontextmanager
async def network(mosquitto: Mosquitto) -> AsyncIterator[tuple[RunningBroker, list[RunningWorker]]]:
    """A broker that knows two gateways."""
    async with contextlib.AsyncExitStack() as stack:
        workers = [
            await stack.enter_async_context(running_worker(configuration(mosquitto.port, name)))
            for name in ("gw01", "gw02")
        ]
        broker = await stack.enter_async_context(running_broker(configuration(mosquitto.port, "b1")))
        await gateways_known(broker, "gw01", "gw02")
        yield broker, workers


def requests(broker: RunningBroker, version: str) -> float:
    return sum(
        broker.metric("wgkex_broker_key_requests_total", api_version=version, domain=domain.name)
        for domain in (WELT, CITY)
    )


def published(broker: RunningBroker) -> float:
    return sum(broker.metric("wgkex_broker_keys_published_total", domain=domain.name) for domain in (WELT, CITY))


async def test_all_routers_are_accepted_and_installed(mosquitto: Mosquitto, bench: Bench) -> None:
    async with network(mosquitto) as (broker, workers):
        # Domains and broker by the configuration.
        listen = {"host": broker.nodes.host, "port": broker.nodes.port}
        file = bench.folder / "wgkex.yaml"
        file.write_text(json.dumps(settings(mosquitto.port, broker_listen=listen)))
        status, output, errors = await simulate(str(ROUTERS), "--within", "3", "--config", str(file), "--json")
        found = summary(output)
        assert (status, errors) == (0, "")
        assert found["accepted"] == {"v1": 0, "v2": ROUTERS}
        assert (found["routers"], found["not_accepted"], found["retries"]) == (ROUTERS, 0, 0)
        assert (found["refused"], found["no_response"], found["interrupted"]) == ({}, {}, False)
        assert found["gateways"].keys() == {"gw01.example.net", "gw02.example.net"}
        assert sum(found["gateways"].values()) == ROUTERS
        times = found["response_seconds"]
        assert 0 < times["p50"] <= times["p99"] <= times["max"] < 10
        assert found["seconds"] > 0
        # The broker has seen the same.
        assert found["requests"] == {"v1": requests(broker, "v1"), "v2": requests(broker, "v2")}
        assert published(broker) == ROUTERS

        async def all_installed() -> bool:
            counts = [[len((await worker.state(domain)).peers) for domain in (WELT, CITY)] for worker in workers]
            return counts == [[ROUTERS / 2, ROUTERS / 2]] * 2

        await eventually_answered(all_installed, f"{ROUTERS} peers on each gateway")


async def test_two_thousand_routers_need_no_more_files_than_a_process_usually_has(mosquitto: Mosquitto) -> None:
    async with network(mosquitto) as (broker, _):
        # Where a machine is busy, some get no response in time, and ask again.
        options = (
            "--url",
            f"http://{broker.nodes}",
            "--domain",
            WELT.name,
            "--within",
            "1",
            "--retry-after",
            "1",
            "--json",
        )
        process = await asyncio.create_subprocess_exec(
            "prlimit", "--nofile=1024:1024", *COMMAND, "2000", *options, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
        found = summary(output.decode())
        assert (process.returncode, sum(found["accepted"].values())) == (0, 2000)
        assert found["no_response"].keys() <= {"timeout"}
        assert published(broker) >= 2000


async def test_a_broker_that_refuses_is_asked_by_version_1_and_again(mosquitto: Mosquitto) -> None:
    async with running_broker(configuration(mosquitto.port)) as broker:
        # Nobody has subscribed.
        options = ("--url", f"http://{broker.nodes}", "--domain", WELT.name, "--within", "0", "--retry-after", "0.1")
        status, output, _ = await simulate("20", *options, "--tries", "3", "--json")
        found = summary(output)
        assert status == 1
        assert (found["accepted"], found["not_accepted"]) == ({"v1": 0, "v2": 0}, 20)
        assert (found["requests"], found["refused"], found["retries"]) == ({"v1": 60, "v2": 60}, {"no_worker": 120}, 40)
        assert requests(broker, "v1") == requests(broker, "v2") == 60

        # A gateway that has announced nothing gets keys, and cannot be named.
        observer = await asyncio.create_subprocess_exec(
            "mosquitto_sub",
            "-p",
            str(mosquitto.port),
            "-q",
            "1",
            "-t",
            "wireguard/#",
            stdout=asyncio.subprocess.DEVNULL,
        )
        try:
            await eventually(lambda: "Sending SUBACK to auto-" in mosquitto.output, "a subscriber")
            status, output, _ = await simulate("20", *options)
        finally:
            observer.terminate()
            await observer.wait()
    assert status == 0
    assert "Accepted      20 of 20 routers: 0 by version 2, 20 by version 1\n" in output
    assert "Refused       20 of 40 requests: no_worker 20\n" in output
    assert "Gateway" not in output


async def test_a_broker_that_is_away_is_no_response() -> None:
    options = ("--url", f"http://127.0.0.1:{free_port()}", "--domain", WELT.name, "--within", "0", "--tries", "1")
    status, output, errors = await simulate("3", *options)
    assert (status, errors) == (1, "")
    assert "Accepted      0 of 3 routers" in output
    assert "No response   6 of 6 requests: connection_refused 6\n" in output
    assert "Responses     none\n" in output


async def test_storms_follow_one_another(mosquitto: Mosquitto) -> None:
    async with network(mosquitto) as (broker, _):
        options = ("--url", f"http://{broker.nodes}", "--domain", WELT.name)
        _, output, _ = await simulate("5", *options, "--within", "0.3", "--for", "1", "--json")
        found = summary(output)
        assert found["routers"] > 5
        assert found["routers"] % 5 == 0
        assert found["accepted"]["v2"] == found["routers"] == published(broker)
        assert found["seconds"] >= 1


async def test_ctrl_c_shows_what_was_until_then(mosquitto: Mosquitto) -> None:
    async with network(mosquitto) as (broker, _):
        options = ("--url", f"http://{broker.nodes}", "--domain", WELT.name, "--within", "600", "--json")
        # A shell starts what runs in its background without Ctrl-C, and so all that these tests start.
        process = await asyncio.create_subprocess_exec(
            *("env", "--default-signal=INT", *COMMAND, "2000", *options),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        await eventually(lambda: published(broker) > 3, "some routers")
        process.send_signal(signal.SIGINT)
        output, errors = await process.communicate()
        found = summary(output.decode())
        assert (process.returncode, errors) == (1, b"")
        assert found["interrupted"]
        # Of the last ones, the responses may have been on their way.
        assert found["accepted"]["v2"] <= published(broker) < 2000
        assert found["not_accepted"] == 2000 - found["accepted"]["v2"]


async def test_a_terminal_of_80_columns_has_a_bar_and_then_the_summary(mosquitto: Mosquitto) -> None:
    async with network(mosquitto) as (broker, _):
        ours, theirs = pty.openpty()
        options = ("--url", f"http://{broker.nodes}", "--domain", WELT.name, "--within", "1")
        terminal = {**os.environ, "COLUMNS": "80", "TERM": "xterm", "NO_COLOR": ""}
        process = await asyncio.create_subprocess_exec(
            *COMMAND, "50", *options, stdout=theirs, stderr=theirs, env=terminal
        )
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # the end of a terminal
            while piece := await asyncio.to_thread(os.read, ours, 65_536):
                shown += piece
        os.close(ours)
        assert await process.wait() == 0
    states = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode()))
    assert any("━" in state and " of 50 accepted" in state for state in states)
    assert max(map(len, states)) < 80
    at = states.index("Accepted      50 of 50 routers: 50 by version 2, 0 by version 1")
    # The bar has gone.
    assert not any("━" in state for state in states[at:])
