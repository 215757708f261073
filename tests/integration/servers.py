"""Real servers and programs for tests: each in a process of its own, on a loopback port of its own, gone at the end.

Nothing here is skipped: a program that is not installed is a failure (`scripts/debian-packages test` installs them).
"""

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self
from urllib.parse import urlencode

from tests.integration.loopback import (
    LOOPBACK,
    TIMEOUT,
    accepts,
    eventually,
    eventually_answered,
    free_port,
    request,
)

_SHOWN_OF_A_LOG: Final = 6_000


class Process:
    """A program that runs, with all its output in a file.

    Args:
        command: the program and its arguments.
        log: the file; what is in it already stays.
    """

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self.command = command
        self.log = log
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                # Even if the tests are killed, nothing outlives them.
                ("setpriv", "--pdeathsig", "KILL", "--", *command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    def send(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    async def ended(self, within: float = TIMEOUT) -> int:
        """Wait for the end, and return the exit status; of a program that was killed, the negative signal."""
        await eventually(lambda: not self.running, f"the end of {self.command}", within)
        return self._popen.wait()

    def close(self) -> None:
        """End it whatever it does, and show its output, which pytest does only for a test that failed."""
        self._popen.kill()
        self._popen.wait(TIMEOUT)
        print(f"--- {self.log.name}", self.output[-_SHOWN_OF_A_LOG:], sep="\n")  # noqa: T201  pytest takes it


class Mosquitto:
    """An MQTT server. It keeps nothing over a restart, and stays on its port.

    Args:
        bench: starts it.
        settings: lines of its configuration besides the listener.
        port: where it listens; by default on a free one.
        address: where it listens.
    """

    def __init__(
        self, bench: "Bench", settings: Sequence[str], port: int | None = None, address: str = LOOPBACK
    ) -> None:
        self._bench = bench
        self.port = port or free_port()
        self._name = bench.name("mosquitto")
        self._config = bench.folder / f"{self._name}.conf"
        # Running as root it would become somebody who cannot read our files. Every event is in its log, as tests wait
        # for some of them.
        lines = (
            "user root",
            f"listener {self.port} {address}",
            *settings,
            *(() if any(line.startswith("password_file") for line in settings) else ("allow_anonymous true",)),
            "log_type all",
            "max_queued_messages 100000",
        )
        self._config.write_text("".join(f"{line}\n" for line in lines))
        self._address = address
        self._process: Process | None = None

    @property
    def process(self) -> Process:
        assert self._process is not None, "it has never been started"
        return self._process

    @property
    def output(self) -> str:
        """The log of all its lives."""
        return self.process.output

    async def start(self) -> None:
        process = self._process = self._bench.start(self._name, "mosquitto", "-c", str(self._config))
        await eventually(lambda: accepts(self.port, self._address) or not process.running, "a server that listens")
        assert process.running, process.output

    def send(self, number: signal.Signals) -> None:
        self.process.send(number)

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.send(number)
        await self.process.ended()

    async def restart(self, number: signal.Signals = signal.SIGTERM) -> None:
        await self.stop(number)
        await self.start()

    def connects_of(self, client_id: str) -> int:
        """How often a client has connected."""
        return sum("New client connected" in line and f" as {client_id} " in line for line in self.output.splitlines())

    def publish(self, topic: str, payload: bytes | str, *options: str) -> None:
        """Publish as a stranger: with mosquitto_pub, QoS 0 unless an option says otherwise."""
        data = payload.encode() if isinstance(payload, str) else payload
        content = "-s" if data else "-n"
        command = ("mosquitto_pub", "-h", LOOPBACK, "-p", str(self.port), "-t", topic, content, *options)
        done = subprocess.run(command, input=data, capture_output=True, timeout=TIMEOUT, check=False)
        assert done.returncode == 0, done.stderr


@dataclass(frozen=True)
class Seen:
    """A message as mosquitto_sub tells of it; `retained` is what its sender asked for."""

    topic: str
    payload: bytes
    qos: int
    retained: bool


class Observer:
    """Sees what goes over an MQTT server: mosquitto_sub, that is somebody else's client."""

    def __init__(self, process: Process) -> None:
        self._process = process

    @property
    def messages(self) -> list[Seen]:
        # The last line may be half written.
        lines = self._process.output.split("\n")[:-1]
        fields = [line.split(" ") for line in lines if line.startswith(">")]
        return [
            Seen(topic, bytes.fromhex(payload), int(qos), retained == "1")
            for _, qos, retained, topic, payload in fields
        ]

    def payloads(self, topic: str) -> list[bytes]:
        return [message.payload for message in self.messages if message.topic == topic]

    async def sees(self, topic: str, payload: bytes | str) -> None:
        """Wait for a message."""
        wanted = payload.encode() if isinstance(payload, str) else payload
        await eventually(lambda: wanted in self.payloads(topic), f"{wanted!r} on {topic}")


class Prometheus:
    """A Prometheus, asked through its API."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def get(self, path: str, **parameters: str) -> Any:  # noqa: ANN401  JSON can be anything
        """The data of an answer of its API."""
        query = f"?{urlencode(parameters)}" if parameters else ""
        answer = await request(f"{self.url}/api/v1/{path}{query}")
        assert answer.status == 200, answer.text
        return answer.json["data"]

    async def query(self, expression: str) -> dict[frozenset[tuple[str, str]], float]:
        """The instant vector: values by labels, without the scrape's own ones and the name."""
        data = await self.get("query", query=expression)
        assert data["resultType"] == "vector", data
        return {
            frozenset((k, v) for k, v in item["metric"].items() if k not in ("__name__", "job", "instance")): float(
                item["value"][1]
            )
            for item in data["result"]
        }

    async def scalar(self, expression: str) -> float | None:
        """The one value of an expression; None if there is none, or more than one."""
        values = list((await self.query(expression)).values())
        return values[0] if len(values) == 1 else None


class Alertmanager:
    """An Alertmanager, asked through its API."""

    def __init__(self, address: str) -> None:
        self.address = address

    async def suppressed(self) -> set[str]:
        """Names of the alerts that an inhibition rule holds back now."""
        answer = await request(f"http://{self.address}/api/v2/alerts?active=false&silenced=false&inhibited=true")
        assert answer.status == 200, answer.text
        return {alert["labels"]["alertname"] for alert in answer.json if alert["status"]["inhibitedBy"]}


class Program:
    """Our broker or worker as a real process, with its log in JSON."""

    def __init__(self, process: Process) -> None:
        self.process = process

    @property
    def events(self) -> list[dict[str, Any]]:
        """The log, a dictionary a line; what is no JSON is a failure."""
        return [json.loads(line) for line in self.process.output.split("\n")[:-1]]

    def logged(self, event: str, **fields: object) -> list[dict[str, Any]]:
        """Lines of one event that have some values."""
        wanted = {"event": event, **fields}
        return [line for line in self.events if all(line.get(name) == value for name, value in wanted.items())]

    async def logs(self, event: str, **fields: object) -> dict[str, Any]:
        """Wait for a line, and return the first one."""
        # Whether it runs is asked first: its last words may come just before its end.
        await eventually(lambda: not self.process.running or self.logged(event, **fields), f"{event} {fields}")
        found = self.logged(event, **fields)
        assert found, f"it ended without {event}"
        return found[0]

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send(number)
        return await self.process.ended()


class Bench:
    """Starts servers and programs, and ends all of them when it is left.

    Args:
        folder: for configurations, logs and data.
        prefix: put in front of each command, for example `ip netns exec NAME`.
    """

    def __init__(self, folder: Path, prefix: Sequence[str] = ()) -> None:
        self.folder = folder
        self._prefix = prefix
        self._numbers = count(1)
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def name(self, what: str) -> str:
        """A name that no other process of this bench has."""
        return f"{what}-{next(self._numbers)}"

    def start(self, name: str, *command: str) -> Process:
        process = Process((*self._prefix, *command), self.folder / f"{name}.log")
        self._stack.callback(process.close)
        return process

    async def mosquitto(self, *settings: str) -> Mosquitto:
        """Start an MQTT server with further lines of configuration."""
        server = Mosquitto(self, settings)
        await server.start()
        return server

    async def observe(self, server: Mosquitto, topic: str = "#") -> Observer:
        """Start to look at what goes over a server; what it has kept comes first."""
        name = self.name("observer")
        process = self.start(
            name,
            *("mosquitto_sub", "-V", "5", "-h", LOOPBACK, "-p", str(server.port), "-i", name),
            *("-q", "1", "-t", topic, "--retain-as-published", "-F", "> %q %r %t %x"),
        )
        await eventually(lambda: f"Sending SUBACK to {name}" in server.output, "an observer that has subscribed")
        return Observer(process)

    async def prometheus(
        self,
        targets: Mapping[str, str | Sequence[str]],
        *,
        interval: str = "1s",
        rules: str = "",
        alertmanager: Alertmanager | None = None,
        storage: Path | None = None,
        scrape: Mapping[str, Any] = MappingProxyType({}),
    ) -> Prometheus:
        """Start a Prometheus.

        Args:
            targets: host and port, or several of them, by the name of the job.
            interval: how often it scrapes, and evaluates its rules.
            rules: the text of a file of rules.
            alertmanager: gets the alerts; it is known when this returns.
            storage: where its data is, if it has some already.
            scrape: further settings of each job.
        """
        name = self.name("prometheus")
        config, rules_file = self.folder / f"{name}.yml", self.folder / f"{name}.rules.yml"
        rules_file.write_text(rules)
        peers = [{"static_configs": [{"targets": [alertmanager.address]}]}] if alertmanager else []
        document = {
            "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
            "scrape_configs": [
                {
                    "job_name": job,
                    **scrape,
                    "static_configs": [{"targets": [each] if isinstance(each, str) else [*each]}],
                }
                for job, each in targets.items()
            ],
            "rule_files": [str(rules_file)],
            "alerting": {"alertmanagers": peers},
        }
        config.write_text(json.dumps(document))
        address = f"{LOOPBACK}:{free_port()}"
        process = self.start(
            name,
            *("prometheus", f"--config.file={config}", f"--web.listen-address={address}"),
            # Alertmanager holds an alert for resolved after four of these without news: a busy machine needs some.
            *(f"--storage.tsdb.path={storage or self.folder / name}", "--storage.tsdb.retention.time=40d"),
            "--rules.alert.resend-delay=3s",
            "--enable-feature=exemplar-storage",
        )
        await self._ready(process, address)
        prometheus = Prometheus(f"http://{address}")

        async def knows_alertmanager() -> bool:
            return len((await prometheus.get("alertmanagers"))["activeAlertmanagers"]) == len(peers)

        # What fires before that is lost until it is sent again.
        await eventually_answered(knows_alertmanager, "a Prometheus that knows its Alertmanager")
        return prometheus

    async def alertmanager(self, config: Mapping[str, object]) -> Alertmanager:
        """Start an Alertmanager with a configuration."""
        name = self.name("alertmanager")
        file = self.folder / f"{name}.yml"
        # JSON is YAML.
        file.write_text(json.dumps(config))
        address = f"{LOOPBACK}:{free_port()}"
        process = self.start(
            name,
            *("prometheus-alertmanager", f"--config.file={file}", f"--web.listen-address={address}"),
            *("--cluster.listen-address=", f"--storage.path={self.folder / name}"),
        )
        await self._ready(process, address)
        return Alertmanager(address)

    async def _ready(self, process: Process, address: str) -> None:
        """Wait until a server of Prometheus's family says that it is ready."""

        async def is_ready() -> bool:
            assert process.running, process.output
            try:
                return (await request(f"http://{address}/-/ready")).status == 200
            except OSError:
                return False

        await eventually_answered(is_ready, f"{process.command[0]} that is ready")

    def wgkex(
        self, command: str, settings: Mapping[str, Any], *options: str, descriptors: int | None = None
    ) -> Program:
        """Start our broker or worker with a configuration, and perhaps with fewer file descriptors than usual."""
        name = self.name(command)
        config = self.folder / f"{name}.yaml"
        config.write_text(json.dumps(settings))  # JSON is YAML
        limited = ("prlimit", f"--nofile={descriptors}") if descriptors else ()
        program = (*limited, sys.executable, "-m", "wgkex_ops", command)
        return Program(self.start(name, *program, "--config", str(config), *options))


@contextlib.contextmanager
def suspended(server: Mosquitto) -> Iterator[None]:
    """A server that hangs: its sockets are there, and nobody answers."""
    server.send(signal.SIGSTOP)
    try:
        yield
    finally:
        server.send(signal.SIGCONT)
