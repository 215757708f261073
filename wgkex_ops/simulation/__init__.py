"""Simulated nodes, which request tunnels over real HTTP as those in the field do."""
