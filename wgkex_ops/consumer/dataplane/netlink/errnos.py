"""The kernel's errors: their numbers, their names and what they mean."""

import errno
import os
from typing import Final

from wgkex_ops.consumer.dataplane.netlink.wire import DecodeError
from wgkex_ops.errors import DataplaneError
from wgkex_ops.model.changes import Operation

_RIGHT_NEEDED: Final = "the right CAP_NET_ADMIN is needed"


def code_of(problem: OSError | DecodeError) -> int:
    """The number of what went wrong. An answer that cannot be read is EBADMSG."""
    return errno.EBADMSG if isinstance(problem, DecodeError) else problem.errno or errno.EIO


def name_of(code: int) -> str:
    """The kernel's name of an error. Python has another one for EOPNOTSUPP, which is the same number on Linux."""
    return "EOPNOTSUPP" if code == errno.EOPNOTSUPP else errno.errorcode.get(code, str(code))


def explain(code: int) -> str:
    """Say what an error means."""
    return _RIGHT_NEEDED if code == errno.EPERM else os.strerror(code)


def dump_error(problem: OSError | DecodeError) -> DataplaneError:
    """Make one of our own errors of a dump that failed."""
    code = code_of(problem)
    return DataplaneError(Operation.DUMP, name_of(code), explain(code) if code == errno.EPERM else str(problem))
