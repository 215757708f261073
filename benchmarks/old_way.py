"""What the old tool did for each key, with today's release of its library."""

from pyroute2 import IPRoute, WireGuard

from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey


def install_the_old_way(domain: Domain, key: PublicKey) -> None:
    """Install one key, with new sockets and lookups for each part."""
    address = str(key.link_local)
    with WireGuard() as wg:
        wg.set(domain.wg, peer={"public_key": str(key), "allowed_ips": [f"{address}/128"]})
    with IPRoute() as ip:
        ip.route("replace", dst=f"{address}/128", oif=ip.link_lookup(ifname=domain.wg)[0])
    with IPRoute() as ip:
        ip.fdb(
            "append",
            ifindex=ip.link_lookup(ifname=domain.vx)[0],
            lladdr="00:00:00:00:00:00",
            dst=address,
            NDA_IFINDEX=ip.link_lookup(ifname=domain.wg)[0],
        )
