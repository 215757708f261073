"""What has the peers: the kernel, or its stand-in in memory."""
