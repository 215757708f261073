"""What a key costs on an interface that has 100, 1,000, 10,000 or 20,000 peers already.

In batches of 500, in milliseconds per key: new keys, and the same ones again, through the installer, without and with
the journal; and each operation on the kernel alone, as bare netlink: adding, refreshing and removing. What grows in the
bare columns grows in the kernel.
"""

import asyncio
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from benchmarks.bare import Bare, fresh_domains, random_keys
from benchmarks.installing import Installing, seconds
from benchmarks.output import logging_to
from tests.kernel.lab import Namespace
from wgkex_ops.__main__ import be_responsive
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey, link_local

LEVELS: Final = (100, 1_000, 10_000, 20_000)
BATCH: Final = 500


class Ladder:
    """One interface that gets more and more peers.

    Attributes:
        figures: milliseconds per key by what was done.
    """

    def __init__(self, domain: Domain, bare: Bare, plain: Installing, journalled: Installing) -> None:
        self._domain = domain
        self._bare = bare
        self._plain = plain
        self._journalled = journalled
        self._peers = 0
        self.figures: dict[str, list[float]] = {}

    async def climb(self, level: int) -> None:
        """Fill the interface up, by way of the journal: it is to know as many as the kernel."""
        missing = random_keys(level - self._peers)
        await self._journalled.install([(self._domain, PublicKey(key)) for key in missing])
        self._peers = level

    async def measure(self) -> None:
        for name, installing in (("installer", self._plain), ("installer with journal", self._journalled)):
            keys = random_keys(BATCH)
            offered = [(self._domain, PublicKey(key)) for key in keys]
            self._note(f"{name}: new", await installing.install(offered, at_once=BATCH))
            self._note(f"{name}: refresh", await installing.install(offered, at_once=BATCH))
            self._remove(keys)
        peers = [(key, link_local(key)) for key in random_keys(BATCH)]
        addresses = [address for _, address in peers]
        for way in ("new", "refresh"):
            self._note(f"bare peer: {way}", seconds(self._bare.add_peers, peers))
            self._note(f"bare route: {way}", seconds(self._bare.add_routes, addresses))
            self._note(f"bare FDB entry: {way}", seconds(self._bare.add_fdb_entries, addresses))
        self._note("bare FDB entry: remove", seconds(self._bare.remove_fdb_entries, addresses))
        self._note("bare route: remove", seconds(self._bare.remove_routes, addresses))
        self._note("bare peer: remove", seconds(self._bare.remove_peers, [key for key, _ in peers]))

    def _remove(self, keys: Sequence[bytes]) -> None:
        addresses = [link_local(key) for key in keys]
        self._bare.remove_fdb_entries(addresses)
        self._bare.remove_routes(addresses)
        self._bare.remove_peers(keys)

    def _note(self, name: str, taken: float) -> None:
        self.figures.setdefault(name, []).append(taken * 1000 / BATCH)


async def measure(domain: Domain, folder: Path) -> dict[str, list[float]]:
    bare = Bare(domain)
    plain, journalled = Installing([domain], None), Installing([domain], folder / "state")
    ladder = Ladder(domain, bare, plain, journalled)
    async with AsyncExitStack() as stack:
        stack.callback(bare.close)
        await stack.enter_async_context(plain.running())
        await stack.enter_async_context(journalled.running())
        for level in LEVELS:
            await ladder.climb(level)
            await ladder.measure()
    return ladder.figures


def main() -> None:
    be_responsive()
    host = Namespace()
    (domain,) = fresh_domains(host, 1)
    with tempfile.TemporaryDirectory() as folder, logging_to(Path(folder) / "log", "info"):
        figures = asyncio.run(measure(domain, Path(folder)))
    print("ms per key".ljust(32), *(f"{level:>8}" for level in LEVELS), flush=True)
    for name, row in figures.items():
        print(name.ljust(32), *(f"{figure:8.3f}" for figure in row), flush=True)
    host.remove_links(domain.vx, domain.wg)


if __name__ == "__main__":
    main()
