"""Blocking netlink sockets that are kept open."""

import errno
import itertools
import os
import socket
import struct
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

from wgkex_ops.consumer.dataplane.netlink import wire

_T = TypeVar("_T")

# Seconds. The kernel answers before send() returns, so this is waited only when an answer got lost.
_ANSWER_TIMEOUT: Final = 3


class NetlinkSocket:
    """A blocking netlink socket to the kernel: opened when it is needed, given up after a failure.

    After a failure nobody can know what is still on its way; a new socket has nothing waiting in it.

    Args:
        protocol: NETLINK_ROUTE or NETLINK_GENERIC.
    """

    def __init__(self, protocol: int) -> None:
        self._protocol = protocol
        self._connection: socket.socket | None = None
        self._sequence = itertools.count(1)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def exchange(self, requests: wire.Requests) -> list[int]:
        """Ask for changes, at most MESSAGES_PER_SEND.

        Returns:
            the errno of each, in order; 0 for success.

        Raises:
            OSError: the socket failed; what has become of the changes is not known.
            wire.DecodeError: an answer cannot be read.
        """
        return self._guarded(partial(self._exchange, requests))

    def dump(self, request: wire.Requests) -> list[bytes]:
        """Ask for a dump.

        Returns:
            the bodies of its messages.

        Raises:
            OSError: the kernel refused it, or the socket failed. EINTR: what was dumped has changed meanwhile.
            wire.DecodeError: an answer cannot be read.
        """
        return self._guarded(partial(self._dump, request))

    def _guarded(self, work: Callable[[], _T]) -> _T:
        try:
            return work()
        except BlockingIOError:
            self.close()
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from None
        except (OSError, wire.DecodeError):
            self.close()
            raise

    def _exchange(self, requests: wire.Requests) -> list[int]:
        count = len(requests.bodies)
        first = next(self._sequence)
        self._sequence = itertools.count(first + count)
        connection = self._opened()
        connection.send(wire.encode(requests, first))
        errors = [0] * count
        while True:
            for message in wire.messages(connection.recv(wire.DATAGRAM_BYTES)):
                position = (message.sequence - first) & wire.SEQUENCE_MASK
                if message.kind != wire.NLMSG_ERROR or position >= count:
                    continue
                errors[position] = wire.decode_error(message.body)
                if position == count - 1:
                    return errors

    def _dump(self, request: wire.Requests) -> list[bytes]:
        sequence = next(self._sequence)
        connection = self._opened()
        connection.send(wire.encode(request, sequence))
        bodies: list[bytes] = []
        interrupted = False
        while True:
            for kind, flags, carried, body in wire.messages(connection.recv(wire.DATAGRAM_BYTES)):
                if carried != sequence & wire.SEQUENCE_MASK:
                    continue
                interrupted = interrupted or bool(flags & wire.NLM_F_DUMP_INTR)
                if kind not in (wire.NLMSG_DONE, wire.NLMSG_ERROR):
                    bodies.append(body)
                    continue
                if code := wire.decode_error(body):
                    raise OSError(code, os.strerror(code))
                if interrupted:
                    raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR))
                return bodies

    def _opened(self) -> socket.socket:
        if self._connection is None:
            connection = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, self._protocol)
            self._connection = connection
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", _ANSWER_TIMEOUT, 0))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, wire.RECEIVE_BUFFER_BYTES)
            # Else a failure's answer carries the whole request, and a message of peers is long.
            connection.setsockopt(wire.SOL_NETLINK, wire.NETLINK_CAP_ACK, 1)
            if self._protocol == wire.NETLINK_ROUTE:
                connection.setsockopt(wire.SOL_NETLINK, wire.NETLINK_GET_STRICT_CHK, 1)
            # Nobody but the kernel can send anything to a connected socket.
            connection.connect((0, 0))
        return self._connection


class WireGuardSocket(NetlinkSocket):
    """A socket for generic netlink, and what one has to know to speak of WireGuard there."""

    def __init__(self) -> None:
        super().__init__(wire.NETLINK_GENERIC)
        self._family: int | None = None

    def family(self) -> int:
        """WireGuard's number among the generic netlink families.

        Raises:
            OSError: there is none (EOPNOTSUPP), or it cannot be asked for.
        """
        if self._family is None:
            self._family = wire.decode_families(self.dump(wire.dump_families())).get(wire.WG_GENL_NAME)
        if self._family is None:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return self._family

    def dump_device(self, interface: int) -> list[bytes]:
        """Ask for a WireGuard interface, by its index, and its peers; see `dump`."""
        try:
            return self.dump(wire.dump_device(self.family(), interface))
        except OSError as problem:
            if problem.errno != errno.ENOENT:
                raise
            self.forget_family()
            return self.dump(wire.dump_device(self.family(), interface))

    def forget_family(self) -> None:
        """Ask for the number again: the module was loaded anew."""
        self._family = None
