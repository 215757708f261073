"""The examples for Icinga and Nagios, in the real programs, which check a real broker and worker."""

import contextlib
import getpass
import grp
import os
import re
import signal
import stat
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final

import pytest

from tests.helpers import ROOT, WELT
from tests.integration.inprocess import settings
from tests.integration.loopback import LOOPBACK, eventually, run
from tests.integration.servers import Bench, Mosquitto, Process, Program

ICINGA: Final = ROOT / "deploy" / "icinga2" / "wgkex.conf"
NAGIOS: Final = ROOT / "deploy" / "nagios" / "wgkex.cfg"
PLUGINS: Final = "/usr/lib/nagios/plugins"
USER: Final = getpass.getuser()
GROUP: Final = grp.getgrgid(os.getgid()).gr_name
OK, WARNING, CRITICAL = range(3)
# In place of sudo: it prints what it would run, as a plugin prints its result.
PRINTS_ITS_COMMAND: Final = f"""#!/bin/sh
echo "would run: $* | post=0.012s;;;"
exit {WARNING}
"""

Services = Mapping[str, Mapping[str, str]]


def icinga_arguments(folder: Path) -> tuple[str, ...]:
    """All that it writes is below a folder, and it stays who it is: as root it would become somebody else."""
    places = ("DataDir", "CacheDir", "LogDir", "InitRunDir", "SpoolDir")
    constants = {"RunAsUser": USER, "RunAsGroup": GROUP, "NodeName": "master"}
    defined = {**constants, **{place: str(folder) for place in places}}
    return tuple(f"-D{name}={value}" for name, value in defined.items())


def icinga_configuration(folder: Path, example: str, hosts: str) -> Path:
    """As an Icinga with a zone for itself, and one for an agent, has it."""
    zone = folder / "zones.d" / "master"
    zone.mkdir(parents=True)
    (zone / "wgkex.conf").write_text(example)
    (zone / "hosts.conf").write_text(hosts)
    config = folder / "icinga2.conf"
    config.write_text(f"""
        include <itl>
        include <plugins>
        const PluginDir = "{PLUGINS}"
        object Endpoint NodeName {{ }}
        object Zone "master" {{ endpoints = [ NodeName ] }}
        object Endpoint "gw01.example.net" {{ }}
        object Zone "gw01.example.net" {{ endpoints = [ "gw01.example.net" ]; parent = "master" }}
        include_zones "etc", "{zone.parent}"
    """)
    return config


def test_icinga_takes_the_example(tmp_path: Path) -> None:
    hosts = """
        object Host "broker01.example.net" {
          check_command = "dummy"
          vars.wgkex_broker = true
          vars.wgkex_address = "10.0.0.1"
        }
        object Host "gw01.example.net" {
          check_command = "dummy"
          vars.agent_endpoint = name
          vars.wgkex_worker = true
        }
        object Host "canary.example.net" {
          check_command = "dummy"
          vars.wgkex_probe = [ "ffmuc_welt", "ffmuc_muc_cty" ]
        }
        object Host "other.example.net" {
          check_command = "dummy"
        }
    """
    arguments = icinga_arguments(tmp_path)
    config = icinga_configuration(tmp_path, ICINGA.read_text(), hosts)

    printed = run("icinga2", "daemon", "-C", "-c", str(config), *arguments)
    assert "warning" not in printed
    listed = run("icinga2", "object", "list", "--type", "Service", *arguments)
    assert set(re.findall(r"^Object '(.*)' of type 'Service'", listed, re.MULTILINE)) == {
        "broker01.example.net!wgkex-broker",
        "gw01.example.net!wgkex-worker",
        "canary.example.net!wgkex-probe-ffmuc_welt",
        "canary.example.net!wgkex-probe-ffmuc_muc_cty",
    }


def nagios_configuration(folder: Path, example: str) -> Path:
    """As Debian has it, with the example beside its own objects, and all files below a folder."""
    objects = folder / "objects"
    objects.mkdir()
    (objects / "wgkex.cfg").write_text(example)
    (objects / "hosts.cfg").write_text(f"""
        define host {{
            use         linux-server
            host_name   localhost
            address     {LOOPBACK}
            hostgroups  wgkex-brokers,wgkex-workers
        }}
    """)
    debian = [f"/etc/nagios4/objects/{name}.cfg" for name in ("commands", "contacts", "timeperiods", "templates")]
    files = ("log_file", "object_cache_file", "status_file", "temp_file", "lock_file", "query_socket", "command_file")
    lines = (
        "cfg_dir=/etc/nagios-plugins/config",
        *(f"cfg_file={file}" for file in debian),
        f"cfg_dir={objects}",
        "resource_file=/etc/nagios4/resource.cfg",
        *(f"{name}={folder / name}" for name in files),
        *(f"{name}={folder}" for name in ("temp_path", "check_result_path", "log_archive_path")),
        *(f"nagios_user={USER}", f"nagios_group={GROUP}"),
        *("use_syslog=0", "enable_notifications=0", "illegal_macro_output_chars=`~$&|'\"<>"),
        # Intervals of seconds, and all checks at once.
        *("interval_length=1", "status_update_interval=1", "service_inter_check_delay_method=n"),
    )
    config = folder / "nagios.cfg"
    config.write_text("".join(f"{line}\n" for line in lines))
    return config


def test_nagios_takes_the_example(tmp_path: Path) -> None:
    printed = run("nagios4", "-v", str(nagios_configuration(tmp_path, NAGIOS.read_text())))

    assert "Checked 4 services." in printed
    assert re.search(r"Total Warnings: 0\nTotal Errors:   0", printed)


class Checks:
    """A running Icinga or Nagios: both write the states of their services into a file of one format."""

    def __init__(self, process: Process, status: Path) -> None:
        self.process = process
        self._status = status

    def services(self) -> Services:
        """Service by name: what its last check has found."""
        text = self._status.read_text() if self._status.exists() else ""
        blocks = re.findall(r"^servicestatus \{\n(.*?)\n\t?\}", text, re.MULTILINE | re.DOTALL)
        fields = [dict(re.findall(r"^\t(\w+)=(.*)$", block, re.MULTILINE)) for block in blocks]
        return {found["service_description"]: found for found in fields}

    async def find(self, service: str, status: int, text: str = "") -> Mapping[str, str]:
        """Wait for a state of a service, and return what the check has found."""

        def found() -> Mapping[str, str] | None:
            assert self.process.running, self.process.output
            known = self.services().get(service, {})
            output = known.get("plugin_output", "") + known.get("long_plugin_output", "")
            return known if output and known["current_state"] == str(status) and text in output else None

        return await eventually(found, f"{service}: {status} {text}")


@contextlib.asynccontextmanager
async def checking(bench: Bench, name: str, ports: Mapping[str, str]) -> AsyncIterator[Checks]:
    """Run Icinga or Nagios with the example, on the ports that broker and worker have, with a check each second."""
    folder = bench.folder / name
    folder.mkdir()
    sudo = folder / "sudo"
    sudo.write_text(PRINTS_ITS_COMMAND)
    sudo.chmod(sudo.stat().st_mode | stat.S_IXUSR)
    example = (ICINGA if name == "icinga2" else NAGIOS).read_text().replace("/usr/bin/sudo", str(sudo))
    for shipped, port in ports.items():
        assert shipped in example
        example = example.replace(shipped, port)
    if name == "icinga2":
        config = folder / "icinga2.conf"
        config.write_text(f"""
            include <itl>
            include <plugins>
            const PluginDir = "{PLUGINS}"
            object CheckerComponent "checker" {{ }}
            object StatusDataWriter "status" {{
              status_path = "{folder}/status_file"
              objects_path = "{folder}/objects"
              update_interval = 1s
            }}
            {re.sub(r"_interval = .*", "_interval = 1s", example)}
            object Host "localhost" {{
              check_command = "dummy"
              vars.wgkex_broker = true
              vars.wgkex_worker = true
              vars.wgkex_probe = [ "{WELT.name}" ]
            }}
        """)
        command = ("icinga2", "daemon", "-c", str(config), *icinga_arguments(folder))
    else:
        command = ("nagios4", str(nagios_configuration(folder, example)))
    # They have children that only they end.
    process = bench.start(name, "setpriv", "--pdeathsig", "TERM", "--", *command)
    try:
        yield Checks(process, folder / "status_file")
    finally:
        process.send(signal.SIGTERM)
        await process.ended()


async def metrics_port(program: Program, event: str) -> str:
    return str((await program.logs(event))["metrics"]).rpartition(":")[2]


@pytest.mark.parametrize(
    ("name", "services"),
    [
        ("icinga2", ("wgkex-broker", "wgkex-worker", "wgkex-probe-ffmuc_welt")),
        ("nagios4", ("wgkex broker", "wgkex worker", "wgkex tunnel ffmuc_welt")),
    ],
)
async def test_a_check_is_critical_with_the_reason_while_a_process_is_not_ready(
    bench: Bench, mosquitto: Mosquitto, name: str, services: tuple[str, str, str]
) -> None:
    broker, worker = (bench.wgkex(command, settings(mosquitto.port)) for command in ("broker", "worker"))
    ports = {
        "9690": await metrics_port(broker, "broker_started"),
        "9691": await metrics_port(worker, "worker_started"),
    }
    async with checking(bench, name, ports) as checks:
        for service in services[:2]:
            found = await checks.find(service, OK, "HTTP OK")
            assert re.match(r"time=[\d.]+s;", found["performance_data"])
        await mosquitto.stop()
        for service in services[:2]:
            await checks.find(service, CRITICAL, "there is no connection with the MQTT server")
        await mosquitto.start()
        for service in services[:2]:
            await checks.find(service, OK)
        await broker.stop()
        await checks.find(services[0], CRITICAL, "Connection refused")
        # The canary: the command line is the one that sudo is to allow, and its result is taken as it is.
        found = await checks.find(services[2], WARNING)
        assert found["plugin_output"].strip() == f"would run: -n {allowed_command()}"
        assert found["performance_data"] == "post=0.012s;;;"


def allowed_command() -> str:
    """What the documents let the monitoring run as root."""
    [command] = re.findall(
        r"^nagios ALL=\(root\) NOPASSWD: (.*)$", (ROOT / "docs" / "stacks.md").read_text(), re.MULTILINE
    )
    return str(command)
