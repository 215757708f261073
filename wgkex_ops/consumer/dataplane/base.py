"""The seam to what carries the peers: the kernel, or its stand-in in memory."""

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
        interface: its name; empty when events were lost and everything should be looked at again.
        present: whether it exists now.
        up: whether it is up now.
    """

    interface: str
    present: bool
    up: bool


class OperationObserver(Protocol):
    """Is told of each batch or dump: what the netlink metrics are made of. Called from any thread."""

    def observe(self, operation: Operation, count: int, errors: Sequence[str], seconds: float) -> None:
        """Take note of one batch.

        Args:
            operation: what was done.
            count: how many single operations the batch had, failed ones included.
            errors: the errno name of each failed one.
            seconds: how long the batch took.
        """


class Dataplane(Protocol):
    """The two implementations are `netlink.KernelDataplane` and `memory.MemoryDataplane`.

    It is entered before use and left at the end, as an asynchronous context manager.
    """

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    async def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        """Carry out many changes, for any number of domains.

        Installing means WireGuard peer, route, FDB entry; removing undoes them in the opposite order, and what is
        absent already is no error. Both are idempotent, so a change that failed half-way can simply be asked for again.

        Returns:
            one outcome per change, in order. One bad change never spoils the others, and none of them raises.
        """

    async def snapshot(self) -> Snapshot:
        """Read the state of all domains.

        Raises:
            DataplaneError: it could not be read (operation ``dump``). A missing interface is no error.
        """

    def events(self) -> AsyncIterator[LinkEvent]:
        """Tell of changes of the domains' interfaces, for as long as the dataplane is open.

        Raises:
            DataplaneError: the source of events broke down.
        """
