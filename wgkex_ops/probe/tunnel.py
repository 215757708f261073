"""The canary's side of a tunnel: a WireGuard interface in a network namespace of its own.

Its UDP socket stays in the namespace that the interface is made from, that of the process
(https://www.wireguard.com/netns/). The new namespace has no name and no process in it: it ends with the thread that has
made it, and the interface with it, whatever ends the process. So nothing is left behind, and link-local addresses and
routes of the mesh cannot disturb the host.

The interface has no address: packets that come out of it are read, and answered by nobody.

pyroute2's messages and errors stay in this file. As everywhere, only its asynchronous classes are used, with a timeout.
"""

import asyncio
import contextlib
import ctypes
import errno
import os
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv6Address
from typing import Final

from pyroute2 import AsyncIPRoute, AsyncWireGuard
from pyroute2.netlink.exceptions import NetlinkError

from wgkex_ops.bus.messages import Endpoint
from wgkex_ops.errors import CannotProbeError, RoundFailedError
from wgkex_ops.model.domains import Domain
from wgkex_ops.probe.keys import PrivateKey
from wgkex_ops.probe.packets import is_mesh_packet
from wgkex_ops.probe.thread import LoopThread

# linux/sched.h; Python has unshare() from 3.12 on.
_CLONE_NEWNET: Final = 0x4000_0000
_OWN_NAMESPACE: Final = "/proc/thread-self/ns/net"
# linux/if_ether.h
_ETH_P_IPV6: Final = 0x86DD
# What WireGuard's manual advises; any value makes it begin a handshake at once.
_KEEPALIVE: Final = 25
# Seconds between two reads of the last handshake: far below what a phase takes.
_POLL: Final = 0.05
# Longer than any packet of a mesh.
_PACKET_BYTES: Final = 65_536
# Seconds. Making and removing takes milliseconds; pyroute2 does not report each failure of its socket.
_NETLINK_TIMEOUT: Final = 5.0


def interface_name(domain: Domain) -> str:
    """The name of a domain's interface: as long as that of the gateways, which Linux allows."""
    return f"pr-{domain.wg.removeprefix('wg-')}"


@dataclass(frozen=True, slots=True)
class _Interface:
    """An interface that is up, seen from the thread that may use it.

    Attributes:
        name: of the interface.
        wireguard: configures it.
        packets: gets the IPv6 packets that come out of it.
    """

    name: str
    wireguard: AsyncWireGuard
    packets: socket.socket

    async def add_peer(self, endpoint: Endpoint, address: tuple[str, int]) -> None:
        """Add the gateway, which begins a handshake."""
        peer = {
            "public_key": endpoint.public_key,
            "endpoint_addr": address[0],
            "endpoint_port": address[1],
            "persistent_keepalive": _KEEPALIVE,
            "allowed_ips": [f"{endpoint.link_address}/128"],
        }
        with _step("the gateway cannot be added to the interface", "CAP_NET_ADMIN"):
            async with asyncio.timeout(_NETLINK_TIMEOUT):
                await self.wireguard.set(self.name, peer=peer)

    async def wait_for_handshake(self) -> None:
        """Wait until there was one, with the only peer."""
        while True:
            with _step("the interface cannot be read", "CAP_NET_ADMIN"):
                messages = [message async for message in await self.wireguard.info(self.name)]
            peers = [peer for message in messages for peer in message.get_attr("WGDEVICE_A_PEERS") or ()]
            times = [peer.get_attr("WGPEER_A_LAST_HANDSHAKE_TIME") for peer in peers]
            if any(time and time["tv_sec"] for time in times):
                return
            await asyncio.sleep(_POLL)

    async def wait_for_mesh_packet(self, source: IPv6Address, destination: IPv6Address) -> None:
        """Wait for a VXLAN packet; see `is_mesh_packet`."""
        loop = asyncio.get_running_loop()
        while True:
            packet = await loop.sock_recv(self.packets, _PACKET_BYTES)
            if is_mesh_packet(packet, source, destination):
                return
            # Whoever floods the tunnel with other packets shall not keep this loop from ending the wait.
            await asyncio.sleep(0)


class KernelTunnel:
    """The `Tunnel` of this machine's kernel."""

    def __init__(self, thread: LoopThread[_Interface], gateway: IPv6Address, own: IPv6Address) -> None:
        self._thread = thread
        self._gateway, self._own = gateway, own

    async def handshake(self) -> None:
        """Wait until there was a handshake."""
        await self._thread.run(_Interface.wait_for_handshake)

    async def vxlan(self) -> None:
        """Wait for a VXLAN packet of the mesh from the gateway."""
        await self._thread.run(
            lambda interface: interface.wait_for_mesh_packet(source=self._gateway, destination=self._own)
        )


@contextlib.asynccontextmanager
async def open_tunnel(
    endpoint: Endpoint, *, domain: Domain, private_key: PrivateKey, own_namespace: bool
) -> AsyncIterator[KernelTunnel]:
    """Make a tunnel to an endpoint; it is removed with the context.

    Args:
        endpoint: of the gateway; its name is resolved as `wg` does it: the first address that the system prefers.
        domain: names the interface.
        private_key: of the interface.
        own_namespace: whether the interface gets a namespace of its own.

    Raises:
        RoundFailedError: the gateway's name has no address.
        CannotProbeError: there can be no such interface here.
    """
    address = await _resolve(endpoint)
    async with LoopThread(partial(_interface, interface_name(domain), private_key, own_namespace)) as thread:
        await thread.run(lambda interface: interface.add_peer(endpoint, address))
        yield KernelTunnel(thread, IPv6Address(endpoint.link_address), private_key.public_key().link_local)


async def check_rights(domain: Domain, private_key: PrivateKey, *, own_namespace: bool) -> None:
    """Make an interface, and remove it.

    Raises:
        CannotProbeError: that is not possible here.
    """
    async with LoopThread(partial(_interface, interface_name(domain), private_key, own_namespace)):
        pass


async def _resolve(endpoint: Endpoint) -> tuple[str, int]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(endpoint.address, endpoint.port, type=socket.SOCK_DGRAM)
    except OSError as error:
        raise RoundFailedError(f"the gateway's name {endpoint.address} has no address: {error.strerror}") from None
    host, port = found[0][4][:2]
    # Its scope is not part of the address.
    return str(host).partition("%")[0], int(port)


@contextlib.asynccontextmanager
async def _interface(name: str, private_key: PrivateKey, own_namespace: bool) -> AsyncIterator[_Interface]:
    async with contextlib.AsyncExitStack() as stack:
        outside = await stack.enter_async_context(AsyncIPRoute())
        # Its socket is made now, and stays in the namespace of the process; so does the UDP socket of what it makes.
        await outside.setup_endpoint()
        if own_namespace:
            _leave_namespace()
            inside = await stack.enter_async_context(AsyncIPRoute())
            place = {"net_ns_fd": os.open(_OWN_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)}
            stack.callback(os.close, place["net_ns_fd"])
        else:
            inside, place = outside, {}
            await _remove_remains(outside, name)
        with _step(f"the interface {name} cannot be made", "CAP_NET_ADMIN"):
            async with asyncio.timeout(_NETLINK_TIMEOUT):
                await outside.link("add", ifname=name, kind="wireguard", **place)
        stack.push_async_callback(_remove, inside, name)
        wireguard = await stack.enter_async_context(AsyncWireGuard())
        await wireguard.setup_endpoint()
        packets = stack.enter_context(_packet_socket())
        with _step(f"the interface {name} cannot be set up", "CAP_NET_ADMIN"):
            async with asyncio.timeout(_NETLINK_TIMEOUT):
                await wireguard.set(name, private_key=private_key.base64)
                await inside.link("set", index=await _index(inside, name), state="up")
            packets.bind((name, _ETH_P_IPV6))
        yield _Interface(name, wireguard, packets)


def _leave_namespace() -> None:
    """Give this thread a network namespace of its own."""
    with _step("a network namespace cannot be made (without one: --no-namespace)", "CAP_SYS_ADMIN"):
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(_CLONE_NEWNET) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))


def _packet_socket() -> socket.socket:
    """A socket for packets without their link layer; it gets none until it is bound."""
    with _step("packets cannot be read", "CAP_NET_RAW"):
        return socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, 0)


async def _index(netlink: AsyncIPRoute, name: str) -> int:
    [link] = await netlink.link("get", ifname=name)
    return int(link["index"])


async def _remove(netlink: AsyncIPRoute, name: str) -> None:
    with _step(f"the interface {name} cannot be removed", "CAP_NET_ADMIN"):
        async with asyncio.timeout(_NETLINK_TIMEOUT):
            await netlink.link("del", index=await _index(netlink, name))


async def _remove_remains(netlink: AsyncIPRoute, name: str) -> None:
    """Remove the interface of a canary that was killed; one of another kind is somebody else's."""
    try:
        async with asyncio.timeout(_NETLINK_TIMEOUT):
            [link] = await netlink.link("get", ifname=name)
    except NetlinkError as error:
        if error.code == errno.ENODEV:
            return
        raise CannotProbeError(f"the interface {name} cannot be read: {os.strerror(error.code)}") from None
    if (link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND")) != "wireguard":
        raise CannotProbeError(f"there is an interface {name} that is not the canary's: remove or rename it")
    await _remove(netlink, name)


@contextlib.contextmanager
def _step(failure: str, capability: str) -> Iterator[None]:
    """Turn an error of the kernel into ours."""
    try:
        yield
    except NetlinkError as error:
        code, cause = error.code, error
    except TimeoutError:
        raise CannotProbeError(f"{failure}: the kernel did not respond") from None
    except OSError as error:
        code, cause = error.errno or errno.EIO, error
    else:
        return
    reason = os.strerror(code)
    if code in (errno.EPERM, errno.EACCES):
        reason = f"{capability} is needed"
    elif code in (errno.EOPNOTSUPP, errno.ENOTSUP):
        reason = "this kernel has no WireGuard"
    raise CannotProbeError(f"{failure}: {reason}") from cause
