"""The steps of a change, with sockets that answer as they are told; the kernel itself has tests of its own."""

import errno
import random
from collections.abc import Callable, Sequence

import pytest

from tests.fakes import Recorder
from tests.helpers import key
from wgkex_ops.consumer.dataplane import apply as changing
from wgkex_ops.consumer.dataplane.apply import Changing, Plan, plans
from wgkex_ops.consumer.dataplane.netlink import wire
from wgkex_ops.consumer.dataplane.netlink.sockets import WireGuardSocket
from wgkex_ops.errors import InterfaceMissingError
from wgkex_ops.model.changes import Action, Change, Operation, Outcome
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import link_local

A, B, GONE = (Domain(f"ffmuc_{name}", f"wg-{name}", f"vx-{name}") for name in ("a", "b", "gone"))
NUMBERS = {"wg-a": 5, "vx-a": 6, "wg-b": 7, "vx-b": 8}
FAMILY = 32


class Answering(WireGuardSocket):
    """A socket that keeps what is said, and answers by what is in it."""

    def __init__(self, code_for: Callable[[bytes], int]) -> None:
        super().__init__()
        self.said: list[wire.Requests] = []
        self._code_for = code_for

    def family(self) -> int:
        return FAMILY

    def exchange(self, requests: wire.Requests) -> list[int]:
        self.said.append(requests)
        return [self._code_for(body) for body in requests.bodies]


def change(domain: Domain, number: int, action: Action = Action.INSTALL) -> Change:
    return (Change.install if action is Action.INSTALL else Change.remove)(domain, key(number))


def nothing_wrong(_: bytes) -> int:
    return 0


@pytest.fixture(autouse=True)
def interfaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changing, "number_of", lambda name: NUMBERS.get(name, 0))


def carry_out(
    changes: Sequence[Change],
    peers: Callable[[bytes], int] = nothing_wrong,
    routes: Callable[[bytes], int] = nothing_wrong,
) -> tuple[list[Outcome], list[wire.Requests], list[wire.Requests], Recorder]:
    wireguard, route, observer = Answering(peers), Answering(routes), Recorder()
    outcomes = Changing(wireguard, route, observer, 158).carry_out(Plan(changes))
    return outcomes, wireguard.said, route.said, observer


def test_one_send_for_each_step_however_the_domains_are_mixed() -> None:
    changes = [change((A, B)[number % 2], number) for number in range(200)]
    outcomes, peers, routes, observer = carry_out(changes)
    assert outcomes == [None] * 200
    assert [len(said.bodies) for said in peers] == [2]
    assert [(said.kind, len(said.bodies)) for said in routes] == [(wire.RTM_NEWROUTE, 200), (wire.RTM_NEWNEIGH, 200)]
    assert observer.seen == [
        (operation, 200, ()) for operation in (Operation.PEER_ADD, Operation.ROUTE_ADD, Operation.FDB_ADD)
    ]


def test_removing_goes_the_other_way() -> None:
    outcomes, peers, routes, observer = carry_out([change(A, 1, Action.REMOVE), change(B, 2, Action.REMOVE)])
    assert outcomes == [None, None]
    assert [said.kind for said in routes] == [wire.RTM_DELNEIGH, wire.RTM_DELROUTE]
    assert [said.kind for said in peers] == [FAMILY]
    assert [operation for operation, *_ in observer.seen] == [
        Operation.FDB_REMOVE,
        Operation.ROUTE_REMOVE,
        Operation.PEER_REMOVE,
    ]


@pytest.mark.parametrize("bad", [{0}, {99}, {3, 4, 50}, set(range(100))])
def test_a_peer_that_the_kernel_refuses_is_found_among_the_others(bad: set[int]) -> None:
    changes = [change(random.choice((A, B)), number) for number in range(100)]
    refused = [key(number).raw for number in bad]
    accepted: list[bytes] = []

    def answer(body: bytes) -> int:
        if any(raw in body for raw in refused):
            return errno.EINVAL
        accepted.append(body)
        return 0

    outcomes, peers, routes, observer = carry_out(changes, peers=answer)
    assert {number for number, outcome in enumerate(outcomes) if outcome is not None} == bad
    refusals = [outcome for outcome in outcomes if outcome is not None]
    assert all(outcome.error == "EINVAL" for outcome in refusals)
    # It is in no message but those that failed, and each of the others is in one that did not.
    told = b"".join(accepted)
    assert all((key(number).raw in told) == (number not in bad) for number in range(100))
    assert observer.seen[0] == (Operation.PEER_ADD, 100, ("EINVAL",) * len(bad))
    assert len(peers) <= 1 + 7  # 100, 50, 25, 13, 7, 4, 2, 1
    for said in routes:
        assert len(said.bodies) == 100 - len(bad)
        assert not any(link_local(raw) in body for raw in refused for body in said.bodies)


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


def test_what_is_not_there_is_removed_already() -> None:
    outcomes, *_, observer = carry_out([change(A, 1, Action.REMOVE)], lambda _: errno.ENODEV, lambda _: errno.ENODEV)
    assert outcomes == [None]
    assert all(errors == () for *_, errors in observer.seen)


def test_plans_are_not_too_long_and_have_no_key_twice() -> None:
    def sizes(changes: Sequence[Change]) -> list[int]:
        made = [len(plan.outcomes) for plan in plans(changes)]
        assert sum(made) == len(changes)
        return made

    assert sizes([]) == []
    assert sizes([change(A, number) for number in range(600)]) == [256, 256, 88]
    assert sizes([change(A, 1), change(A, 2), change(A, 1), change(B, 2)]) == [2, 2]
    # Its route goes to where it is asked for last, whatever the domains' names.
    for first, last in ((A, B), (B, A)):
        assert [list(plan.domains) for plan in plans([change(first, 1), change(last, 1)])] == [[first], [last]]


def test_wireguard_has_another_number_when_its_module_was_loaded_anew() -> None:
    class Kernel(WireGuardSocket):
        number = 32

        def dump(self, request: wire.Requests) -> list[bytes]:
            if request == wire.dump_families():
                name = wire.attribute(2, b"wireguard\0")
                return [bytes(4) + wire.attribute(1, self.number.to_bytes(2, "little")) + name]
            if request != wire.dump_device(self.number, 7):
                raise OSError(errno.ENOENT, "no such family")
            return [b"answer"]

    kernel = Kernel()
    assert kernel.dump_device(7) == [b"answer"]
    kernel.number = 33
    assert kernel.dump_device(7) == [b"answer"]
    with pytest.raises(FileNotFoundError):
        kernel.dump_device(8)
