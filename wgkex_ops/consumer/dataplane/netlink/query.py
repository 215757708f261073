"""Encodes requests for dumps. `parse` decodes what the kernel sends for them."""

from wgkex_ops.consumer.dataplane.netlink import uapi
from wgkex_ops.consumer.dataplane.netlink.framing import Requests, encode_attribute


def dump_families() -> Requests:
    """Request all generic netlink families.

    A request for one by name would make the kernel load its module (net/netlink/genetlink.c, ctrl_getfamily).
    """
    return Requests(uapi.GENL_ID_CTRL, uapi.NLM_F_DUMP, [uapi.GENLMSGHDR.pack(uapi.CTRL_CMD_GETFAMILY, 1)])


def dump_device(family: int, interface: int) -> Requests:
    """Request a WireGuard interface, by its index, and its peers."""
    body = uapi.GENLMSGHDR.pack(uapi.WG_CMD_GET_DEVICE, uapi.WG_GENL_VERSION)
    body += encode_attribute(uapi.WGDEVICE_A_IFINDEX, uapi.U32.pack(interface))
    return Requests(family, uapi.NLM_F_DUMP, [body])


def dump_links() -> Requests:
    """Request all interfaces, with what they have carried.

    What is skipped are the statistics of IPv6, which are longer than all else (net/ipv6/addrconf.c,
    inet6_fill_ifla6_attrs); IFLA_STATS64 is there all the same (net/core/rtnetlink.c, rtnl_fill_stats).
    """
    body = uapi.IFINFOMSG.pack(uapi.AF_UNSPEC, 0, 0, 0, 0)
    body += encode_attribute(uapi.IFLA_EXT_MASK, uapi.U32.pack(uapi.RTEXT_FILTER_SKIP_STATS))
    return Requests(uapi.RTM_GETLINK, uapi.NLM_F_DUMP, [body])


def dump_routes(protocol: int) -> Requests:
    """Request the IPv6 routes of the main table with a protocol number. The socket needs NETLINK_GET_STRICT_CHK."""
    return Requests(uapi.RTM_GETROUTE, uapi.NLM_F_DUMP, [_route_filter(protocol)])


def dump_routes_over(interface: int) -> Requests:
    """Request the IPv6 routes of the main table over an interface, of any protocol. Needs NETLINK_GET_STRICT_CHK."""
    body = _route_filter(uapi.RTPROT_UNSPEC) + encode_attribute(uapi.RTA_OIF, uapi.U32.pack(interface))
    return Requests(uapi.RTM_GETROUTE, uapi.NLM_F_DUMP, [body])


def dump_fdb(vxlan: int) -> Requests:
    """Request the forwarding database of one interface. The socket needs NETLINK_GET_STRICT_CHK."""
    return Requests(uapi.RTM_GETNEIGH, uapi.NLM_F_DUMP, [uapi.NDMSG.pack(uapi.AF_BRIDGE, vxlan, 0, 0, 0)])


def _route_filter(protocol: int) -> bytes:
    return uapi.RTMSG.pack(uapi.AF_INET6, 0, 0, 0, uapi.RT_TABLE_MAIN, protocol, 0, uapi.RTN_UNICAST, 0)
