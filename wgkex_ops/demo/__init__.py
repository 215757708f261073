"""The whole service in one process, to try it out."""
