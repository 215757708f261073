"""The kernel side: from a key on the bus to a peer in the kernel."""
