"""Write the files that are shipped: `python -m alerts`."""

from alerts.files import files
from alerts.settings import Settings

if __name__ == "__main__":
    for path, text in files(Settings()).items():
        path.write_text(text)
