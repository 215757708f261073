"""The worker's hands: what turns a key from the bus into a peer in the kernel."""
