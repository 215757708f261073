"""The MQTT bus: its messages, one connection, and the session that outlives connections."""
