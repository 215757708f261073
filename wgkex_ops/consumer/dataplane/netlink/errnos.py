"""The kernel's errors: their numbers, their names and what they mean."""

import errno
import os

from wgkex_ops.consumer.dataplane.netlink.framing import DecodeError
from wgkex_ops.errors import DataplaneError
from wgkex_ops.model.changes import Operation


def code_of(problem: OSError | DecodeError) -> int:
    """The number of an error. A message that cannot be decoded is EBADMSG."""
    return errno.EBADMSG if isinstance(problem, DecodeError) else problem.errno or errno.EIO


def name_of(code: int) -> str:
    """The kernel's name of an error. Python has another one for EOPNOTSUPP, which has the same number on Linux."""
    return "EOPNOTSUPP" if code == errno.EOPNOTSUPP else errno.errorcode.get(code, str(code))


def explain(code: int) -> str:
    """What an error means."""
    return "CAP_NET_ADMIN is needed" if code == errno.EPERM else os.strerror(code)


def dump_error(problem: OSError | DecodeError) -> DataplaneError:
    """Turn the error of a dump into our own one."""
    code = code_of(problem)
    return DataplaneError(Operation.DUMP, name_of(code), explain(code) if code == errno.EPERM else str(problem))
