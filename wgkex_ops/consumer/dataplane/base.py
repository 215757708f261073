"""The seam to what has the peers: the kernel, or its stand-in in memory."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from wgkex_ops.model.changes import Change, Operation, Outcome
from wgkex_ops.model.peers import Snapshot


@dataclass(frozen=True, slots=True)
class LinkEvent:
    """An interface came, went, or changed its state.

    Attributes:
        interface: its name; empty when events were lost, so that anything may have changed.
        present: whether it exists now.
        up: whether it is up now.
    """

    interface: str
    present: bool
    up: bool


class OperationObserver(Protocol):
    """What the netlink metrics are made of. Called from any thread."""

    def observe(self, operation: Operation, count: int, errors: Sequence[str], seconds: float) -> None:
        """Take note of one batch of operations, or of one dump.

        Args:
            operation: what was done.
            count: how many operations the batch had, failed ones included.
            errors: the errno name of each failed one.
            seconds: how long the batch took.
        """


class Dataplane(Protocol):
    """The two implementations are `kernel.KernelDataplane` and `memory.MemoryDataplane`.

    It is an asynchronous context manager: entered before use and left at the end.
    """

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    async def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        """Carry out many changes, for any number of domains.

        To install is to add WireGuard peer, route and FDB entry; to remove undoes that in the opposite order, and what
        is already absent is no error. Both are idempotent: a change that failed in one step can be applied again.

        Returns:
            one outcome per change, in order. A change that fails affects no other one, and raises nothing.
        """

    async def snapshot(self) -> Snapshot:
        """Read the state of all domains.

        Raises:
            DataplaneError: it could not be read (operation ``dump``). A missing interface is no error.
        """

    def events(self) -> AsyncIterator[LinkEvent]:
        """Report changes of the domains' interfaces, for as long as the dataplane is open.

        Raises:
            DataplaneError: changes can no longer be received.
        """
