"""Tests; a package by name, because a dependency installs another one of that name."""
