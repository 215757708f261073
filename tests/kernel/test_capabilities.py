"""What the dataplane needs: interfaces, and one capability."""

import sys

from tests.kernel.dataplane import A, B, assert_exactly, new_keys
from tests.kernel.lab import Namespace
from wgkex_ops.consumer.dataplane.kernel import probe


def test_probe(here: Namespace) -> None:
    assert probe([A, B]) == "there is none of the WireGuard interfaces wg-a, wg-b"
    here.add_domain(B, 2)
    before = here.links()
    assert probe([A, B]) is None
    assert here.links() == before


# Installs a peer, and prints the outcome.
PROGRAM = """
import asyncio, sys
from wgkex_ops.consumer.dataplane.kernel import KernelDataplane, probe
from wgkex_ops.model.changes import Change
from wgkex_ops.model.domains import Domain
from wgkex_ops.errors import DataplaneError
from wgkex_ops.model.keys import PublicKey

class NullObserver:
    def observe(self, operation, count, errors, seconds): ...

async def main(domain, key):
    print("probe", probe([domain]))
    async with KernelDataplane([domain], NullObserver()) as dataplane:
        print("install", *await dataplane.apply([Change.install(domain, key)]))
        try:
            print("peers", len((await dataplane.snapshot()).domains[domain.name].peers))
        except DataplaneError as problem:
            print("snapshot", problem)

asyncio.run(main(Domain("ffx_a", "wg-a", "vx-a"), PublicKey.parse(sys.argv[1])))
"""

UNPRIVILEGED = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs")


def test_no_capability_but_cap_net_admin_is_needed(here: Namespace, own_keys: list[str]) -> None:
    keys = new_keys(1)
    only_net_admin = ("--inh-caps=-all,+net_admin", "--ambient-caps=-all,+net_admin", "--bounding-set=-all,+net_admin")
    output = here.run(*UNPRIVILEGED, *only_net_admin, sys.executable, "-c", PROGRAM, str(keys[0]))
    assert output.splitlines() == ["probe None", "install None", "peers 1"]
    assert_exactly(here, A, keys)


def test_errors_name_the_missing_capability(here: Namespace, own_keys: list[str]) -> None:
    none = ("--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all")
    output = here.run(*UNPRIVILEGED, *none, sys.executable, "-c", PROGRAM, str(new_keys(1)[0]))
    assert output.splitlines() == [
        "probe the WireGuard peers cannot be read: CAP_NET_ADMIN is needed",
        "install peer_add: EPERM: CAP_NET_ADMIN is needed",
        "snapshot dump: EPERM: CAP_NET_ADMIN is needed",
    ]
    assert_exactly(here, A, [])
