"""Blocking netlink sockets that are kept open."""

import errno
import itertools
import os
import socket
import struct
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

from wgkex_ops.consumer.dataplane.netlink import parse, query, uapi
from wgkex_ops.consumer.dataplane.netlink.framing import (
    SEQUENCE_MASK,
    DecodeError,
    Requests,
    decode_error,
    decode_messages,
    encode_messages,
)

_T = TypeVar("_T")

# The kernel sends its errors while it still reads the requests. If all of them fail, that many errors have to fit into
# the receive buffer, each with the kernel's bookkeeping (sk_buff and the page fragment around it).
MESSAGES_PER_SEND: Final = 256
_ERROR_BYTES: Final = 1280
# The kernel doubles what is requested (socket(7), SO_RCVBUF). Up to 208 KiB are granted by default.
RECEIVE_BUFFER_BYTES: Final = MESSAGES_PER_SEND * _ERROR_BYTES // 2

# The kernel makes no datagram of a dump longer than 32 KiB (net/netlink/af_netlink.c, netlink_dump). What does not fit
# into the buffer of recv() would be lost.
_DATAGRAM_BYTES: Final = 1 << 16

# Seconds. The kernel sends everything before send() returns: recv() only waits for what was lost.
_RECEIVE_TIMEOUT: Final = 3


class NetlinkSocket:
    """A blocking netlink socket to the kernel. It is opened when it is needed.

    It is closed after a failure: messages may still arrive in it, and a new one is empty.

    Args:
        protocol: NETLINK_ROUTE or NETLINK_GENERIC.
        receive_buffer: bytes; half of what the kernel grants.
    """

    def __init__(self, protocol: int, receive_buffer: int = RECEIVE_BUFFER_BYTES) -> None:
        self._protocol = protocol
        self._receive_buffer = receive_buffer
        self._connection: socket.socket | None = None
        self._sequence = itertools.count(1)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def exchange(self, requests: Requests) -> list[int]:
        """Send requests for changes, at most MESSAGES_PER_SEND.

        Returns:
            the errno of each, in order; 0 for success.

        Raises:
            OSError: the socket failed; which changes were made is unknown.
            DecodeError: a message cannot be decoded.
        """
        return self._close_on_failure(partial(self._exchange, requests))

    def dump(self, request: Requests) -> list[bytes]:
        """Send a request for a dump.

        Returns:
            the bodies of its messages.

        Raises:
            OSError: the kernel refused it, or the socket failed. EINTR: what is dumped changed meanwhile.
            DecodeError: a message cannot be decoded.
        """
        return self._close_on_failure(partial(self._dump, request))

    def _close_on_failure(self, work: Callable[[], _T]) -> _T:
        try:
            return work()
        except BlockingIOError:
            self.close()
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from None
        except (OSError, DecodeError):
            self.close()
            raise

    def _exchange(self, requests: Requests) -> list[int]:
        count = len(requests.bodies)
        first = next(self._sequence)
        self._sequence = itertools.count(first + count)
        connection = self._connected()
        connection.send(encode_messages(requests, first))
        errors = [0] * count
        while True:
            for message in decode_messages(connection.recv(_DATAGRAM_BYTES)):
                position = (message.sequence - first) & SEQUENCE_MASK
                if message.kind != uapi.NLMSG_ERROR or position >= count:
                    continue
                errors[position] = decode_error(message.body)
                if position == count - 1:
                    return errors

    def _dump(self, request: Requests) -> list[bytes]:
        sequence = next(self._sequence)
        connection = self._connected()
        connection.send(encode_messages(request, sequence))
        bodies: list[bytes] = []
        interrupted = False
        while True:
            for kind, flags, carried, body in decode_messages(connection.recv(_DATAGRAM_BYTES)):
                if carried != sequence & SEQUENCE_MASK:
                    continue
                interrupted = interrupted or bool(flags & uapi.NLM_F_DUMP_INTR)
                if kind not in (uapi.NLMSG_DONE, uapi.NLMSG_ERROR):
                    bodies.append(body)
                    continue
                if code := decode_error(body):
                    raise OSError(code, os.strerror(code))
                if interrupted:
                    raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR))
                return bodies

    def _connected(self) -> socket.socket:
        if self._connection is None:
            connection = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, self._protocol)
            self._connection = connection
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", _RECEIVE_TIMEOUT, 0))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
            # Else each error repeats the whole request, and a message of peers is long.
            connection.setsockopt(uapi.SOL_NETLINK, uapi.NETLINK_CAP_ACK, 1)
            if self._protocol == uapi.NETLINK_ROUTE:
                connection.setsockopt(uapi.SOL_NETLINK, uapi.NETLINK_GET_STRICT_CHK, 1)
            # A connected socket receives from the kernel only.
            connection.connect((0, 0))
        return self._connection


class WireGuardSocket(NetlinkSocket):
    """A socket for generic netlink that knows WireGuard's number there."""

    def __init__(self, receive_buffer: int = RECEIVE_BUFFER_BYTES) -> None:
        super().__init__(uapi.NETLINK_GENERIC, receive_buffer)
        self._family: int | None = None

    def family(self) -> int:
        """WireGuard's number among the generic netlink families.

        Raises:
            OSError: there is none (EOPNOTSUPP), or the families cannot be read.
            DecodeError: a message cannot be decoded.
        """
        if self._family is None:
            self._family = parse.decode_families(self.dump(query.dump_families())).get(uapi.WG_GENL_NAME)
        if self._family is None:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return self._family

    def dump_device(self, interface: int) -> list[bytes]:
        """Dump a WireGuard interface, by its index, with its peers; see `dump`."""
        try:
            return self.dump(query.dump_device(self.family(), interface))
        except OSError as problem:
            if problem.errno != errno.ENOENT:
                raise
            self.forget_family()
            return self.dump(query.dump_device(self.family(), interface))

    def forget_family(self) -> None:
        """Read the number again: the module was loaded anew."""
        self._family = None
