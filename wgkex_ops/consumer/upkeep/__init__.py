"""Keeping a gateway's peers as they should be: journal, reconciler, cleanup."""
