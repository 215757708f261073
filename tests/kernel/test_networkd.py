"""systemd-networkd itself makes the interfaces, from the units that `wgkex-ops interfaces` writes."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fakes import Recorder
from tests.helpers import ROOT
from tests.kernel.dataplane import addresses, assert_exactly, install, new_keys
from tests.kernel.lab import Namespace
from tests.kernel.network import DOMAIN, eventually, running
from tests.kernel.test_interfaces_command import VNI, assert_as_planned, settings
from wgkex_ops.consumer.dataplane.kernel import KernelDataplane
from wgkex_ops.model.peers import ROUTE_PROTOCOL

# networkd waits for udev, which knows nothing of this network namespace, unless /sys is read-only, as in a container.
NETWORKD = """
mount -t tmpfs tmpfs /run/systemd
mount --bind "$1" /etc/systemd
mount --bind /sys /sys
mount -o remount,bind,ro /sys
export SYSTEMD_LOG_TARGET=console SYSTEMD_LOG_LEVEL=debug
exec /lib/systemd/systemd-networkd 2>"$2"
"""


@contextmanager
def networkd(folder: Path) -> Iterator[Path]:
    """systemd-networkd in this network namespace, with a folder as /etc/systemd, once it has configured everything.

    Yields the file of its log.
    """
    log = folder.with_suffix(".log")
    log.write_text("")
    with running(["unshare", "--mount", "sh", "-ec", NETWORKD, "sh", str(folder), str(log)]) as process:

        def is_done() -> bool:
            assert process.poll() is None, log.read_text()
            text = log.read_text()
            return all(f"{name}: State changed: configuring -> configured" in text for name in (DOMAIN.wg, DOMAIN.vx))

        eventually(is_done, "both interfaces are configured")
        yield log
    assert [line for line in log.read_text().splitlines() if "/etc/systemd/" in line and "gnoring" in line] == []


def interfaces(here: Namespace, folder: Path, *options: str) -> list[str]:
    """Run the command with a folder as /etc/systemd; its defaults lead there."""
    script = 'mount --bind "$1" /etc/systemd; shift; exec "$@"'
    command = (sys.executable, "-m", "wgkex_ops", "interfaces", "--config", str(folder.with_suffix(".yaml")), *options)
    return here.run("unshare", "--mount", "sh", "-ec", script, "sh", str(folder), *command).splitlines()


def managed_routes(log: Path) -> list[str]:
    """The worker's routes that networkd has taken in, and so removes from an interface that it configures later."""
    lines = log.read_text().splitlines()
    return [
        line for line in lines if f"proto: {ROUTE_PROTOCOL}," in line and "Ignoring received foreign route" not in line
    ]


@pytest.mark.timeout(1800)
async def test_networkd_makes_the_same_interfaces_and_leaves_routes_and_fdb_entries_alone(
    here: Namespace, tmp_path: Path, recorder: Recorder
) -> None:
    folder = tmp_path / "systemd"
    folder.mkdir()
    folder.with_suffix(".yaml").write_text(
        f"domains: [{DOMAIN}]\ndomain_prefixes: [ffmuc_]\nmqtt: {{broker_url: localhost}}\n"
    )
    # As the document has it.
    text = (ROOT / "docs" / "interfaces.md").read_text()
    batman = re.findall(r"^```ini\n# /etc/systemd/(network/\S+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(batman) == 2
    for name, unit in batman:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(unit)
    written = interfaces(here, folder, "--output", "/etc/systemd", "--vni", f"{DOMAIN}={VNI}")
    assert [line.split()[-1] for line in written] == ["new"] * 6

    keys = new_keys(2)
    async with KernelDataplane([DOMAIN], recorder) as dataplane:
        with networkd(folder):
            assert_as_planned(here, 40000, 1420)
            assert settings(here, DOMAIN.vx)["addr_info"] == []
            assert settings(here, DOMAIN.vx)["master"] == "bat-welt"
            again = interfaces(here, folder, "--apply")
            assert again[-2:] == ["wg-welt  unchanged", "vx-welt  unchanged"]
            assert await dataplane.apply(install(DOMAIN, keys)) == [None, None]

        # It takes the peers away when it starts, and the worker puts them back.
        with networkd(folder) as log:
            assert sorted(route["dst"] for route in here.routes(DOMAIN.wg, ROUTE_PROTOCOL)) == addresses(keys)
            assert sorted(here.fdb(DOMAIN.vx)) == addresses(keys)
            assert await dataplane.apply(install(DOMAIN, keys)) == [None, None]
            assert_exactly(here, DOMAIN, keys)
        assert managed_routes(log) == []

        # Without the drop-in, it would take the routes for its own to manage.
        (folder / "networkd.conf.d" / "10-wgkex.conf").unlink()
        with networkd(folder) as log:
            eventually(lambda: len(managed_routes(log)) == len(keys), "it has taken in the routes")
