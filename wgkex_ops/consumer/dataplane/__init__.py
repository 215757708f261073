"""What carries the peers: the kernel, or its stand-in in memory."""
