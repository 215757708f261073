"""The whole service in one process, for trying it out."""
