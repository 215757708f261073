"""The image, built and run by Podman, with the services of the compose files: old and new."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.helpers import KEY, OTHER_KEY, ROOT, TESTDATA, post_key
from tests.integration.images import IMAGE, REVISION, Container, Podman, built_image, wheels_only
from tests.integration.loopback import LOOPBACK, accepts, eventually, eventually_answered, request, run
from tests.integration.servers import Bench, Mosquitto, Process
from tests.kernel.lab import Namespace, inside, namespaces
from wgkex_ops.config import Listen

COMPOSE: Final = ROOT / "deploy" / "compose"
# Everything that has a meaning to YAML, a shell, or Compose.
PASSWORD: Final = """ #p: a"s$$w$O}R`D`%[{&*!|>\\n, é """
BROKER: Final = Listen(host=LOOPBACK, port=5000)
NET_ADMIN: Final = 1 << 12  # linux/capability.h
CHECK: Final = ("broker", "--check-config")
Start = Callable[..., Container]
# Of the host in compose.yaml, as its containers see it.
GATEWAY: Final = "172.30.158.1"


def services(name: str, environment: Path) -> Mapping[str, Any]:
    """The services of a compose file as Compose understands them, with the variables of a file."""
    text = run("docker-compose", "--env-file", str(environment), "-f", str(COMPOSE / name), "config")
    # What it prints is a compose file again, in which a dollar is two.
    found: Mapping[str, Any] = yaml.safe_load(text.replace("$$", "$"))["services"]
    return found


@pytest.fixture(scope="session")
def podman() -> Podman:
    return built_image()


@pytest.fixture
def host(podman: Podman) -> Iterator[Namespace]:
    """A host of its own, where the ports that the compose files name are free; this thread is on it."""
    with namespaces() as add:
        # Another process may run another of these tests.
        namespace = add(f"compose-{os.getpid()}")
        namespace.run("ip", "address", "add", f"{GATEWAY}/24", "dev", "lo")
        with inside(Path(f"/run/netns/{namespace.name}")):
            yield namespace


@pytest.fixture
def start(host: Namespace, bench: Bench, podman: Podman) -> Iterator[Start]:
    """Starts containers; they would outlive the program that started them."""
    with contextlib.ExitStack() as stack:

        def start_it(
            service: Mapping[str, Any], secrets: Mapping[str, Path] | None = None, options: Sequence[str] = ()
        ) -> Container:
            container = Container(bench, podman, service, secrets or {}, options)
            stack.callback(container.remove)
            return container

        yield start_it


def events(container: Container) -> list[Mapping[str, Any]]:
    lines = container.process.output.split("\n")[:-1]
    return [json.loads(line) for line in lines if line.startswith("{")]


async def logs(container: Container, event: str) -> Mapping[str, Any]:
    """Wait for a line of the log."""

    def look() -> Mapping[str, Any] | None:
        assert container.process.running, container.process.output
        return next((line for line in events(container) if line["event"] == event), None)

    return await eventually(look, event)


async def is_healthy(container: Container) -> None:
    await eventually(lambda: container.health == 0, "health")


def capabilities(container: Container) -> set[int]:
    """Those of the first process: what it may use, and what it could ever get."""
    status = container.try_to("cat", "/proc/1/status").stdout
    return {int(value, 16) for value in re.findall(r"^Cap(?:Eff|Prm|Bnd):\s*(\w+)$", status, re.MULTILINE)}


def test_the_image_says_what_it_is_and_has_what_it_needs_only(podman: Podman) -> None:
    image = podman.image()

    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in image["Labels"].items()}
    assert labels.keys() >= {"title", "description", "source", "documentation", "licenses"}
    assert (labels["version"], labels["revision"]) == (version("wgkex-ops"), REVISION)
    assert image["User"] == "10001:0"
    assert image["Volumes"].keys() == {"/var/lib/wgkex"}
    assert image["Healthcheck"]["Test"] == ["CMD", "wgkex-container", "healthcheck"]

    def inside(*command: str) -> subprocess.CompletedProcess[str]:
        return podman.try_to("run", "--rm", "--network=none", "--cgroups=disabled", "--read-only", IMAGE, *command)

    assert inside("--version").stdout == f"wgkex-ops {version('wgkex-ops')}\n"
    assert inside("id", "-u").stdout == "10001\n"
    # What is there is what constraints.txt says, and nothing to change it with.
    program = "from importlib.metadata import distributions as d; print(*(f'{x.name}=={x.version}' for x in d()))"
    installed = inside("/opt/wgkex-ops/bin/python", "-c", program).stdout.lower().replace("-", "_").split()
    pinned = (ROOT / "constraints.txt").read_text().lower().replace("-", "_").split()
    assert len(installed) > 20
    assert [one for one in installed if one not in pinned] == [f"wgkex_ops=={version('wgkex-ops')}"]
    # A file that is mounted wins over the variables.
    file = f"--volume={TESTDATA / 'config' / 'old.yaml'}:/etc/wgkex.yaml:ro"
    checked = podman("run", "--rm", "--network=none", "--cgroups=disabled", file, "-eMQTT_TLS=maybe", IMAGE, *CHECK)
    assert checked == "The configuration is fine.\n"
    # Errors are those of the entry point.
    wrong = podman.try_to("run", "--rm", "--network=none", "--cgroups=disabled", "-eMQTT_TLS=maybe", IMAGE, "worker")
    assert (wrong.returncode, wrong.stderr) == (2, "MQTT_TLS: should be true or false\n")


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_each_library_has_a_wheel_for_the_python_of_the_image(tmp_path: Path, machine: str) -> None:
    [python] = re.findall(
        r"^ARG PYTHON_IMAGE=\S+/python:([0-9.]+)-slim", (ROOT / "Containerfile").read_text(), re.MULTILINE
    )

    pip = (sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", f"--target={tmp_path}")
    run(*pip, *wheels_only(python, machine))


async def test_the_older_compose_file_works_with_this_image(
    host: Namespace, bench: Bench, start: Start, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text(f"MQTT_USERNAME=wgkex\nMQTT_PASSWORD='\"{PASSWORD}\"'\n")
    found = services("compose.old.yaml", tmp_path / ".env")
    assert found.keys() == {"mqtt", "broker", "worker"}
    (tmp_path / "passwords").touch()
    run("mosquitto_passwd", "-b", str(tmp_path / "passwords"), "wgkex", PASSWORD)
    await Mosquitto(bench, (f"password_file {tmp_path / 'passwords'}",), port=1883).start()
    resolves = ("--add-host=mqtt:127.0.0.1",)
    broker = start(found["broker"], options=resolves)
    worker = start(found["worker"], options=resolves)
    await logs(broker, "broker_started")
    await logs(worker, "worker_announced")

    async def accepted() -> bool:
        return (await post_key(BROKER, 1, "ffmuc_welt", KEY))[0] == 200

    await eventually_answered(accepted, "a key that is accepted")
    # As before, the worker has no interfaces there: it says so, and lives on.
    await logs(worker, "peer_postponed")
    for container in (broker, worker):
        await is_healthy(container)
    # Both ask their own process, though they share a network here.
    broker.signal("STOP")
    assert broker.health == 1
    assert worker.health == 0
    broker.signal("CONT")
    await is_healthy(broker)
    # Commands of operators have the same configuration.
    table = broker.try_to("wgkex-container", "status", "--json")
    assert json.loads(table.stdout)["domains"], table.stderr
    for container in (worker, broker):
        container.signal("TERM")
        assert await container.process.ended() == 0


async def test_the_new_compose_file_has_a_way_for_a_key_and_no_rights_to_spare(
    host: Namespace, bench: Bench, start: Start, tmp_path: Path
) -> None:
    found = services("compose.yaml", COMPOSE / ".env.example")
    secrets = {}
    for name in ("mqtt_broker", "mqtt_worker", "mqtt_operator"):
        secrets[name] = tmp_path / name
        secrets[name].write_text(f"{name}#'\"$%\\\n")
    environment = found["mqtt"]["environment"]
    await mqtt_server(bench, environment, tmp_path)
    resolves = ("--add-host=mqtt:127.0.0.1",)
    broker = start(found["broker"], secrets=secrets, options=resolves)
    # The kernel here may have no WireGuard.
    gateway = start(found["worker"], secrets=secrets, options=("--env=WGKEX_DATAPLANE=memory",))
    await logs(broker, "broker_started")
    await logs(gateway, "worker_announced")

    async def endpoint() -> str:
        return str((await post_key(BROKER, 2, "ffmuc_welt", OTHER_KEY))[1].get("Endpoint", {}).get("Address", ""))

    await eventually_answered(endpoint, "a gateway for a node")
    assert await endpoint() == "gw01.example.net"
    assert (await logs(gateway, "peer_installed"))["public_key"] == OTHER_KEY
    assert (broker.health, gateway.health) == (0, 0)

    assert capabilities(broker) == {0}
    assert capabilities(gateway) == {NET_ADMIN}
    for container in (broker, gateway):
        status = container.try_to("cat", "/proc/1/status").stdout
        assert re.search(r"^NoNewPrivs:\s*1$", status, re.MULTILINE)
        assert container.try_to("touch", "/opt/x").stderr.strip().endswith("Read-only file system")
    assert "journal" in gateway.try_to("ls", "/var/lib/wgkex").stdout
    # What Prometheus asks for, by the names that it has.
    for target in targets():
        name, _, port = target.rpartition(":")
        address = GATEWAY if name == GATEWAY else LOOPBACK
        answer = await request(f"http://{address}:{port}/metrics", headers={"Host": target})
        assert answer.status == 200, answer.text


async def mqtt_server(bench: Bench, environment: Mapping[str, str], folder: Path) -> Process:
    """Start Mosquitto by the script of compose.yaml, whose paths are those of the container."""
    places = {name: folder / f"mqtt-{name}" for name in ("etc", "data", "run")}
    for place in places.values():
        place.mkdir()
    for file in (ROOT / "deploy" / "mosquitto").iterdir():
        shutil.copy(file, places["etc"])
    with (places["etc"] / "mosquitto.conf").open("a") as config:
        # Started as root, it would become a user that cannot read our files.
        config.write("user root\n")
    variables = {f"MOSQUITTO_{name.upper()}": str(path) for name, path in places.items()}
    variables |= {"MOSQUITTO_DATA": f"{places['data']}/", "MOSQUITTO_SECRETS": str(folder), **environment}
    words = [f"{name}={value}" for name, value in variables.items()]
    process = bench.start("mqtt", "env", *words, "sh", str(COMPOSE / "mosquitto-start"))
    await eventually(lambda: accepts(1883) or not process.running, "an MQTT server that listens")
    assert process.running, process.output
    return process


def targets() -> list[str]:
    """What Prometheus scrapes in compose.yaml."""
    jobs = yaml.safe_load((COMPOSE / "prometheus.yaml").read_text())["scrape_configs"]
    return [target for job in jobs for group in job["static_configs"] for target in group["targets"]]


@pytest.mark.parametrize("secret", ["", "two\nlines", "ümlaut", "a:b", "a b"])
async def test_the_mqtt_server_does_not_start_with_a_secret_that_is_none(
    bench: Bench, tmp_path: Path, secret: str
) -> None:
    for name in ("mqtt_broker", "mqtt_worker", "mqtt_operator"):
        (tmp_path / name).write_text(secret if name == "mqtt_worker" else "secret")
    (tmp_path / "mosquitto.conf").touch()
    (tmp_path / "wgkex.acl").touch()
    places = [f"MOSQUITTO_{name}={tmp_path}" for name in ("ETC", "RUN", "SECRETS")]
    names = ("WGKEX_BROKER_NAME=broker01", "WGKEX_WORKER_NAME=gw01")

    process = bench.start("mqtt", "env", *places, *names, "sh", str(COMPOSE / "mosquitto-start"))
    assert await process.ended() == 1
    assert "the secret mqtt_worker is " in process.output


def test_compose_starts_nothing_without_the_values_that_have_no_default(tmp_path: Path) -> None:
    (tmp_path / ".env").touch()

    command = ("docker-compose", "--env-file", str(tmp_path / ".env"), "-f", str(COMPOSE / "compose.yaml"), "config")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "set it in .env" in done.stderr


def test_prometheus_takes_its_configuration(tmp_path: Path) -> None:
    shutil.copy(COMPOSE / "prometheus.yaml", tmp_path)
    shutil.copy(ROOT / "alerts" / "wgkex.rules.yaml", tmp_path)

    assert "SUCCESS" in run("promtool", "check", "config", str(tmp_path / "prometheus.yaml"))
