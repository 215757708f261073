"""`wgkex-ops peer` on a real kernel: what a gateway says when one part after another is missing."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import Recorder
from tests.kernel.dataplane import DOMAINS, install, new_keys
from tests.kernel.lab import Namespace
from wgkex_ops.__main__ import main
from wgkex_ops.consumer.dataplane.kernel import KernelDataplane
from wgkex_ops.consumer.upkeep.journal_file import JournalFile, Row
from wgkex_ops.model.keys import PublicKey

DOMAIN = DOMAINS[0]


class Gateway:
    """A gateway with a configuration, whose worker does not run."""

    def __init__(self, here: Namespace, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.here = here
        self.lists = folder / "keys.yaml"
        self.state = folder / "state"
        self._capsys = capsys
        self._config = folder / "wgkex.yaml"
        document = {
            "domains": [domain.name for domain in DOMAINS],
            "domain_prefixes": ["ffx_"],
            "mqtt": {"broker_url": "localhost"},
            "key_lists": str(self.lists),
            "worker": {"name": "gw01", "state_dir": str(self.state)},
        }
        self.lists.write_text("denied: []\n")
        self._config.write_text(json.dumps(document))

    def ask(self, query: object) -> dict[str, Any]:
        status = main(["peer", "--config", str(self._config), "--json", str(query)])
        out, err = self._capsys.readouterr()
        assert err == ""
        (found,) = json.loads(out)
        assert status == (0 if found["verdict"]["outcome"] == "tunnel" else 1)
        assert isinstance(found, dict)
        return found

    def verdict(self, key: PublicKey) -> str:
        return str(self.ask(key)["verdict"]["text"])

    def shown(self, query: object) -> str:
        main(["peer", "--config", str(self._config), str(query)])
        return self._capsys.readouterr().out


async def install_one(key: PublicKey) -> int:
    """Install a key as a worker does, and return the UDP port of its domain."""
    async with KernelDataplane(DOMAINS, Recorder()) as dataplane:
        (outcome,) = await dataplane.apply(install(DOMAIN, [key]))
        assert outcome is None
        return (await dataplane.snapshot()).domains[DOMAIN.name].listen_port


def test_the_verdict_names_what_is_missing(
    here: Namespace, own_keys: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert own_keys
    gateway = Gateway(here, tmp_path, capsys)
    (key,) = new_keys(1)
    address = str(key.link_local)
    assert "not known here" in gateway.verdict(key)

    port = asyncio.run(install_one(key))
    file = JournalFile(gateway.state)
    file.open()
    file.save([Row(key.raw, DOMAIN.name, 1_000_000.0, 0.0, version_2=True)])
    file.close()
    files = sorted(gateway.state.iterdir())

    text = f"installed, never a handshake: the router's packets do not arrive; check UDP {port}"
    assert gateway.verdict(key).startswith(text)
    assert gateway.ask(address)["key"] == str(key)
    shown = gateway.shown(key)
    for line in (f"Allowed IPs  {address}/128", "Route        ours", "FDB entry    yes", "Handshake    never"):
        assert line in shown
    assert "Endpoint     none: no packet has come" in shown
    here.run("wg", "set", DOMAIN.wg, "peer", str(key), "endpoint", "192.0.2.1:1")
    assert "Endpoint     IPv4" in gateway.shown(key)

    here.sh(f"bridge fdb del 00:00:00:00:00:00 dev {DOMAIN.vx} dst {address} via {DOMAIN.wg}")
    assert "VXLAN has no FDB entry for it" in gateway.verdict(key)
    here.sh(f"ip -6 route del {address}/128 dev {DOMAIN.wg}")
    assert f"no route leads to it over {DOMAIN.wg}" in gateway.verdict(key)
    here.run("wg", "set", DOMAIN.wg, "peer", str(key), "remove")
    assert f"should be a peer in {DOMAIN.name}, and is none" in gateway.verdict(key)
    here.sh(f"ip link set {DOMAIN.vx} down")
    assert f"{DOMAIN.vx} is down: see 'wgkex-ops doctor'" in gateway.verdict(key)
    here.sh(f"ip link del {DOMAIN.vx}")
    assert f"{DOMAIN.vx} is missing: see 'wgkex-ops doctor'" in gateway.verdict(key)
    gateway.lists.write_text(f"denied:\n  - {{key: '{key}', name: Rathaus}}\n")
    assert "denied by the key lists" in gateway.verdict(key)
    assert gateway.ask("rathaus")["key"] == str(key)
    # To look changes nothing, not even beside the journal.
    assert sorted(gateway.state.iterdir()) == files
