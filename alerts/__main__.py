"""Write the rules file that is shipped."""

from pathlib import Path

from alerts.rules import document
from alerts.settings import Settings

if __name__ == "__main__":
    Path(__file__).with_name("wgkex.rules.yaml").write_text(document(Settings()))
