"""Faults are made with real servers and programs, as the other tests have them."""

from tests.integration.conftest import bench, mosquitto

__all__ = ["bench", "mosquitto"]
