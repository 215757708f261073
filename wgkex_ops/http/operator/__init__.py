"""The operators' listener of both processes: metrics, health, and a page for people."""
