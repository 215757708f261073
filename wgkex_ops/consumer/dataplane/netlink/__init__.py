"""Netlink: a pure codec, cut by verb, and the sockets.

- `uapi`: numbers and structures from the kernel's headers, under their names there
- `framing`: what every message has: headers, attributes, errors
- `configure`: encodes changes: peers, routes, FDB entries
- `query`: encodes requests for dumps
- `parse`: decodes dumps
- `interfaces`: encodes and decodes how interfaces are configured
- `sockets`: blocking sockets that exchange such messages with the kernel
- `links`: addresses and events of interfaces, by way of pyroute2
- `errnos`: what the kernel's errors are called and mean

To send one more attribute, add its number to `uapi` and encode it in `configure`. To read one more, decode it in
`parse`: a peer's becomes a field of `model.peers.Peer`, an interface's one of `parse.Device`, which the package above
puts into a snapshot (`snapshot.py`).
"""
