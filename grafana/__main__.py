"""Write the dashboards, and their list for the monitoring mixin: `python -m grafana`."""

from grafana.catalogue import DIRECTORY, dashboards, text
from grafana.mixin import LIST, dashboards_list


def main() -> None:
    """Write every file, and remove those of dashboards that are no more."""
    written = {name: text(dashboard) for name, dashboard in dashboards().items()}
    for stale in set(DIRECTORY.glob("*.json")) - {DIRECTORY / name for name in written}:
        stale.unlink()
    for name, content in written.items():
        (DIRECTORY / name).write_text(content)
    LIST.write_text(dashboards_list(written))


if __name__ == "__main__":
    main()
