"""A gateway with the dataplane in memory, through whatever can happen to it."""

import structlog
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.invariants import GatewayMachine

PROFILE = settings(max_examples=40, stateful_step_count=40, deadline=None, phases=[Phase.generate])


def test_what_must_hold_holds_whatever_happens() -> None:
    with structlog.testing.capture_logs():
        run_state_machine_as_test(
            GatewayMachine,
            settings=settings(max_examples=40, stateful_step_count=40, deadline=None, phases=[Phase.generate]),
        )
