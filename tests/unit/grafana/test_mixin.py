"""The list of dashboards that the mixin imports."""

from grafana.catalogue import dashboards
from grafana.mixin import LIST, dashboards_list


def test_the_list_is_generated() -> None:
    assert LIST.read_text() == dashboards_list(dashboards())
