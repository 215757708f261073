"""The dataplane in memory and the cleanup are what a model is, through whatever can happen to a gateway."""

import pytest
import structlog
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.dataplane_model import DataplaneMachine

PROFILE = settings(max_examples=50, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


# To find a short example of what went wrong takes minutes.
@pytest.mark.timeout(600)
def test_memory_and_cleanup_are_what_the_model_is() -> None:
    with structlog.testing.capture_logs():
        run_state_machine_as_test(DataplaneMachine, settings=PROFILE)
