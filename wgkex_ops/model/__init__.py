"""Values without I/O: keys, domains, and what a gateway has of its peers."""
