"""WireGuard key exchange for community mesh networks, as an operations service."""
