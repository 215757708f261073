"""How many new keys a second the installer brings into the kernel, with peer, route and FDB entry.

Compared, in each round, with the old tool's way, one key at a time with new sockets and pyroute2's own calls; and with
bare netlink (`bare`), which is the limit. All of them derive the addresses from the keys. After each step the keys
are removed, since the kernel itself becomes slower with each FDB entry. The worker's log lines are on, as they are by
default, and go to a file; further rows show the installer without them, and with the journal.
"""

import asyncio
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from benchmarks.bare import Bare, fresh_domains, random_keys
from benchmarks.installing import Installing, seconds
from benchmarks.old_way import install_the_old_way
from benchmarks.output import logging_to
from tests.kernel.lab import Namespace
from wgkex_ops.__main__ import be_responsive
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey, link_local

ROUNDS: Final = 15
DOMAINS: Final = 4
KEYS: Final = 2000
# They take a tenth of a second each.
OLD_KEYS: Final = 24

# Keys by domain.
Keys = dict[Domain, list[bytes]]


def new_keys(domains: Sequence[Domain], count: int) -> Keys:
    return {domain: random_keys(count // len(domains)) for domain in domains}


def one_by_one(keys: Keys) -> float:
    started = [(domain, PublicKey(key)) for domain, some in keys.items() for key in some]

    def install() -> None:
        for domain, key in started:
            install_the_old_way(domain, key)

    return seconds(install)


def ours(keys: Keys, log: Path, level: str, state_dir: Path | None = None) -> float:
    async def install() -> float:
        installing = Installing(list(keys), state_dir)
        # As they come from the bus: the domains mixed.
        mixed = zip(*keys.values(), strict=True)
        offered = [(domain, PublicKey(key)) for some in mixed for domain, key in zip(keys, some, strict=True)]
        async with installing.running():
            return await installing.install(offered)

    with logging_to(log, level):
        return asyncio.run(install())


def remove(bare: Bare, keys: Sequence[bytes], *, routes: bool) -> None:
    """Remove what was installed; the routes of the old way carry another number, and few of them do no harm."""
    addresses = [link_local(key) for key in keys]
    bare.remove_fdb_entries(addresses)
    if routes:
        bare.remove_routes(addresses)
    bare.remove_peers(keys)


def measure(domains: Sequence[Domain], folder: Path) -> dict[str, list[float]]:
    """Keys a second by way, of each round."""
    opened = {domain: Bare(domain) for domain in domains}

    def bare(keys: Keys) -> float:
        def install() -> None:
            for domain, some in keys.items():
                opened[domain].install(some)

        return seconds(install)

    def with_journal(keys: Keys) -> float:
        with tempfile.TemporaryDirectory(dir=folder) as state_dir:
            return ours(keys, folder / "log", "info", Path(state_dir))

    ways: dict[str, tuple[int, Callable[[Keys], float]]] = {
        "old way": (OLD_KEYS, one_by_one),
        "bare netlink": (KEYS, bare),
        "installer": (KEYS, lambda keys: ours(keys, folder / "log", "info")),
        "installer without log lines": (KEYS, lambda keys: ours(keys, folder / "log", "warning")),
        "installer with journal": (KEYS, with_journal),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS + 1):
        for name, (count, way) in ways.items():
            keys = new_keys(domains, count)
            rates[name].append(count / way(keys))
            for domain, some in keys.items():
                remove(opened[domain], some, routes=way is not one_by_one)
        print(", ".join(f"{name} {found[-1]:.1f} keys/s" for name, found in rates.items()), flush=True)
    for one in opened.values():
        one.close()
    # The first round warms up.
    return {name: found[1:] for name, found in rates.items()}


def main() -> None:
    be_responsive()
    host = Namespace()
    domains = fresh_domains(host, DOMAINS)
    with tempfile.TemporaryDirectory() as folder:
        rates = measure(domains, Path(folder))
    medians = {name: statistics.median(found) for name, found in rates.items()}
    for name, found in rates.items():
        print(
            f"{name}: {medians[name]:.1f} keys/s ({min(found):.1f} to {max(found):.1f}); "
            f"{medians[name] / medians['old way']:.1f} of the old way, "
            f"{medians[name] / medians['bare netlink']:.2f} of bare netlink",
            flush=True,
        )
    host.remove_links(*(name for domain in domains for name in (domain.vx, domain.wg)))


if __name__ == "__main__":
    main()
