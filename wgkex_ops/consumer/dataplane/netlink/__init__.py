"""Netlink: its bytes, its sockets, and news of network interfaces."""
