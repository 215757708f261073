"""The steps of a change, with sockets that return prepared errors. tests/kernel has the same with a real kernel."""

import errno
import random
from collections.abc import Callable, Sequence

import pytest

from tests.fakes import Recorder
from tests.helpers import key
from wgkex_ops.consumer.dataplane.apply import KernelWriter, Plan, make_plans
from wgkex_ops.consumer.dataplane.netlink import framing, query, uapi
from wgkex_ops.consumer.dataplane.netlink.framing import Requests
from wgkex_ops.consumer.dataplane.netlink.sockets import WireGuardSocket
from wgkex_ops.errors import InterfaceMissingError
from wgkex_ops.model.changes import Action, Change, Operation, Outcome
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import link_local

A, B, GONE = (Domain(f"ffmuc_{name}", f"wg-{name}", f"vx-{name}") for name in ("a", "b", "gone"))
INDICES = {"wg-a": 5, "vx-a": 6, "wg-b": 7, "vx-b": 8}
FAMILY = 32


class ScriptedSocket(WireGuardSocket):
    """Keeps all requests, and returns an error for each body."""

    def __init__(self, error_for: Callable[[bytes], int]) -> None:
        super().__init__()
        self.sent: list[Requests] = []
        self._error_for = error_for

    def family(self) -> int:
        return FAMILY

    def exchange(self, requests: Requests) -> list[int]:
        self.sent.append(requests)
        return [self._error_for(body) for body in requests.bodies]


def change(domain: Domain, number: int, action: Action = Action.INSTALL) -> Change:
    return (Change.install if action is Action.INSTALL else Change.remove)(domain, key(number))


def success(_: bytes) -> int:
    return 0


def carry_out(
    changes: Sequence[Change],
    peers: Callable[[bytes], int] = success,
    routes: Callable[[bytes], int] = success,
) -> tuple[list[Outcome], list[Requests], list[Requests], Recorder]:
    wireguard, route, observer = ScriptedSocket(peers), ScriptedSocket(routes), Recorder()
    writer = KernelWriter(wireguard, route, observer, 158, index_of=lambda name: INDICES.get(name, 0))
    return writer.carry_out(Plan(changes)), wireguard.sent, route.sent, observer


def test_one_send_for_each_step_however_the_domains_are_mixed() -> None:
    changes = [change((A, B)[number % 2], number) for number in range(200)]
    outcomes, peers, routes, observer = carry_out(changes)
    assert outcomes == [None] * 200
    assert [len(sent.bodies) for sent in peers] == [2]
    assert [(sent.kind, len(sent.bodies)) for sent in routes] == [(uapi.RTM_NEWROUTE, 200), (uapi.RTM_NEWNEIGH, 200)]
    assert observer.seen == [
        (operation, 200, ()) for operation in (Operation.PEER_ADD, Operation.ROUTE_ADD, Operation.FDB_ADD)
    ]


def test_removing_goes_the_other_way() -> None:
    outcomes, peers, routes, observer = carry_out([change(A, 1, Action.REMOVE), change(B, 2, Action.REMOVE)])
    assert outcomes == [None, None]
    assert [sent.kind for sent in routes] == [uapi.RTM_DELNEIGH, uapi.RTM_DELROUTE]
    assert [sent.kind for sent in peers] == [FAMILY]
    assert [operation for operation, *_ in observer.seen] == [
        Operation.FDB_REMOVE,
        Operation.ROUTE_REMOVE,
        Operation.PEER_REMOVE,
    ]


def test_clearing_an_address_removes_route_and_fdb_entry_and_no_peer() -> None:
    address = link_local(key(1).raw)
    outcomes, peers, routes, observer = carry_out([Change.clear(A, address), change(A, 2, Action.REMOVE)])
    assert outcomes == [None, None]
    assert [sent.kind for sent in routes] == [uapi.RTM_DELNEIGH, uapi.RTM_DELROUTE]
    assert all(address in sent.bodies[0] for sent in routes)
    assert observer.of(Operation.ROUTE_REMOVE) == [(2, ())]
    assert observer.of(Operation.PEER_REMOVE) == [(1, ())]
    (only_one,) = peers[0].bodies
    assert key(1).raw not in only_one
    assert key(2).raw in only_one


@pytest.mark.parametrize("bad", [{0}, {99}, {3, 4, 50}, set(range(100))])
def test_a_peer_that_the_kernel_refuses_is_found_among_the_others(bad: set[int]) -> None:
    changes = [change(random.choice((A, B)), number) for number in range(100)]
    refused = [key(number).raw for number in bad]
    accepted: list[bytes] = []

    def refuse(body: bytes) -> int:
        if any(raw in body for raw in refused):
            return errno.EINVAL
        accepted.append(body)
        return 0

    outcomes, peers, routes, observer = carry_out(changes, peers=refuse)
    assert {number for number, outcome in enumerate(outcomes) if outcome is not None} == bad
    refusals = [outcome for outcome in outcomes if outcome is not None]
    assert all(outcome.error == "EINVAL" for outcome in refusals)
    # The accepted messages have all peers but the refused ones.
    sent_peers = b"".join(accepted)
    assert all((key(number).raw in sent_peers) == (number not in bad) for number in range(100))
    assert observer.seen[0] == (Operation.PEER_ADD, 100, ("EINVAL",) * len(bad))
    assert len(peers) <= 1 + 7  # 100, 50, 25, 13, 7, 4, 2, 1
    for sent in routes:
        assert len(sent.bodies) == 100 - len(bad)
        assert not any(link_local(raw) in body for raw in refused for body in sent.bodies)


def test_outcomes_are_in_the_order_of_the_changes() -> None:
    changes = [
        change(A, 1),
        change(B, 2, Action.REMOVE),
        change(GONE, 3),
        change(B, 4),
        change(GONE, 5, Action.REMOVE),
        change(A, 6, Action.REMOVE),
        change(A, 7),
    ]
    no_route = link_local(key(4).raw), link_local(key(6).raw)
    outcomes, *_ = carry_out(changes, routes=lambda body: errno.ENOMEM if any(one in body for one in no_route) else 0)
    assert [str(outcome.operation) if outcome else None for outcome in outcomes] == [
        None,
        None,
        "peer_add",
        "route_add",
        None,
        "fdb_remove",
        None,
    ]
    assert isinstance(outcomes[2], InterfaceMissingError)


def test_what_is_absent_counts_as_removed() -> None:
    outcomes, *_, observer = carry_out([change(A, 1, Action.REMOVE)], lambda _: errno.ENODEV, lambda _: errno.ENODEV)
    assert outcomes == [None]
    assert all(errors == () for *_, errors in observer.seen)


def test_plans_are_not_too_long_and_have_no_address_twice() -> None:
    def sizes(changes: Sequence[Change]) -> list[int]:
        made = [len(plan.outcomes) for plan in make_plans(changes)]
        assert sum(made) == len(changes)
        return made

    assert sizes([]) == []
    assert sizes([change(A, number) for number in range(600)]) == [256, 256, 88]
    assert sizes([change(A, 1), change(A, 2), change(A, 1), change(B, 2)]) == [2, 2]
    # The route goes to the domain of the last change, whatever the names of the domains.
    for first, last in ((A, B), (B, A)):
        assert [list(plan.domains) for plan in make_plans([change(first, 1), change(last, 1)])] == [[first], [last]]


def test_wireguard_has_another_number_when_its_module_was_loaded_anew() -> None:
    class Kernel(WireGuardSocket):
        number = 32

        def dump(self, request: Requests) -> list[bytes]:
            if request == query.dump_families():
                name = framing.encode_attribute(2, b"wireguard\0")
                return [bytes(4) + framing.encode_attribute(1, self.number.to_bytes(2, "little")) + name]
            if request != query.dump_device(self.number, 7):
                raise OSError(errno.ENOENT, "no such family")
            return [b"device"]

    kernel = Kernel()
    assert kernel.dump_device(7) == [b"device"]
    kernel.number = 33
    assert kernel.dump_device(7) == [b"device"]
    with pytest.raises(FileNotFoundError):
        kernel.dump_device(8)
