"""Numbers and structures of the kernel's headers (``include/uapi/linux``), under the names they have there.

Netlink uses the machine's own byte order.
"""

import struct
from typing import Final

# netlink.h
NETLINK_ROUTE: Final = 0
NETLINK_GENERIC: Final = 16
SOL_NETLINK: Final = 270
NETLINK_CAP_ACK: Final = 10
NETLINK_GET_STRICT_CHK: Final = 12
NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3
NLM_F_REQUEST: Final = 0x001
NLM_F_ACK: Final = 0x004
NLM_F_DUMP_INTR: Final = 0x010
NLM_F_REPLACE: Final = 0x100
NLM_F_EXCL: Final = 0x200
NLM_F_DUMP: Final = 0x300
NLM_F_CREATE: Final = 0x400
NLM_F_APPEND: Final = 0x800
NLA_F_NESTED: Final = 0x8000
NLA_TYPE_MASK: Final = 0x3FFF

# genetlink.h
GENL_ID_CTRL: Final = 0x10
CTRL_CMD_GETFAMILY: Final = 3
CTRL_ATTR_FAMILY_ID: Final = 1
CTRL_ATTR_FAMILY_NAME: Final = 2

# wireguard.h
WG_GENL_NAME: Final = "wireguard"
WG_GENL_VERSION: Final = 1
WG_CMD_GET_DEVICE: Final = 0
WG_CMD_SET_DEVICE: Final = 1
WGDEVICE_A_IFINDEX: Final = 1
WGDEVICE_A_PRIVATE_KEY: Final = 3
WGDEVICE_A_PUBLIC_KEY: Final = 4
WGDEVICE_A_LISTEN_PORT: Final = 6
WGDEVICE_A_PEERS: Final = 8
WGPEER_A_PUBLIC_KEY: Final = 1
WGPEER_A_PRESHARED_KEY: Final = 2
WGPEER_A_FLAGS: Final = 3
WGPEER_A_ENDPOINT: Final = 4
WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL: Final = 5
WGPEER_A_LAST_HANDSHAKE_TIME: Final = 6
WGPEER_A_RX_BYTES: Final = 7
WGPEER_A_TX_BYTES: Final = 8
WGPEER_A_ALLOWEDIPS: Final = 9
WGPEER_A_PROTOCOL_VERSION: Final = 10
WGPEER_F_REMOVE_ME: Final = 1
WGPEER_F_REPLACE_ALLOWEDIPS: Final = 2
WGPEER_F_UPDATE_ONLY: Final = 4
WGALLOWEDIP_A_FAMILY: Final = 1
WGALLOWEDIP_A_IPADDR: Final = 2
WGALLOWEDIP_A_CIDR_MASK: Final = 3

# rtnetlink.h, socket.h, if.h, if_link.h, if_addr.h
RTM_NEWLINK: Final = 16
RTM_GETLINK: Final = 18
RTM_NEWADDR: Final = 20
RTM_GETADDR: Final = 22
RTM_NEWROUTE: Final = 24
RTM_DELROUTE: Final = 25
RTM_GETROUTE: Final = 26
RTM_NEWNEIGH: Final = 28
RTM_DELNEIGH: Final = 29
RTM_GETNEIGH: Final = 30
AF_UNSPEC: Final = 0
AF_BRIDGE: Final = 7
AF_INET6: Final = 10
RT_TABLE_MAIN: Final = 254
RT_SCOPE_UNIVERSE: Final = 0
RTPROT_UNSPEC: Final = 0
RTN_UNICAST: Final = 1
RTA_DST: Final = 1
RTA_OIF: Final = 4
RTA_PRIORITY: Final = 6
RTA_TABLE: Final = 15
IFF_UP: Final = 1
IFLA_IFNAME: Final = 3
IFLA_MTU: Final = 4
IFLA_LINKINFO: Final = 18
IFLA_STATS64: Final = 23
IFLA_AF_SPEC: Final = 26
IFLA_EXT_MASK: Final = 29
IFLA_INFO_KIND: Final = 1
IFLA_INFO_DATA: Final = 2
IFLA_VXLAN_ID: Final = 1
IFLA_VXLAN_LINK: Final = 3
IFLA_VXLAN_LEARNING: Final = 7
IFLA_VXLAN_PORT: Final = 15
IFLA_VXLAN_LOCAL6: Final = 17
IFLA_INET6_ADDR_GEN_MODE: Final = 8
IN6_ADDR_GEN_MODE_NONE: Final = 1
IFA_ADDRESS: Final = 1
IFA_LOCAL: Final = 2
RTEXT_FILTER_SKIP_STATS: Final = 8

# neighbour.h
NDA_DST: Final = 1
NDA_LLADDR: Final = 2
NDA_IFINDEX: Final = 8
NTF_SELF: Final = 0x02
NUD_NOARP: Final = 0x40
NUD_PERMANENT: Final = 0x80

NLMSGHDR: Final = struct.Struct("=IHHII")  # length, type, flags, sequence number, port
NLATTR: Final = struct.Struct("=HH")  # length, type
GENLMSGHDR: Final = struct.Struct("=BBxx")  # command, version
IFINFOMSG: Final = struct.Struct("=BxHiII")  # family, device type, index, flags, change
IFADDRMSG: Final = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
RTMSG: Final = struct.Struct("=BBBBBBBBI")  # family, dst_len, src_len, tos, table, protocol, scope, type, flags
NDMSG: Final = struct.Struct("=BxxxiHBB")  # family, index, state, flags, type
# The beginning of struct rtnl_link_stats64: packets received and sent, bytes received and sent.
RTNL_LINK_STATS64: Final = struct.Struct("=16xQQ")
KERNEL_TIMESPEC: Final = struct.Struct("=qq")  # seconds, nanoseconds
S32: Final = struct.Struct("=i")
U8: Final = struct.Struct("=B")
U16: Final = struct.Struct("=H")
U32: Final = struct.Struct("=I")
U64: Final = struct.Struct("=Q")
BE16: Final = struct.Struct("!H")

KEY_BYTES: Final = 32
ADDRESS_BYTES: Final = 16
ADDRESS_BITS: Final = 128
# Each gateway's VXLAN interface has one FDB entry of this address, with a destination for each peer.
ALL_ZERO_MAC: Final = bytes(6)
