"""Publish services from behind a NAT through a server with a public address.

What a program needs is in `tunnel.api` and re-exported here, lazily: `import tunnel.yamux` loads
no Trio.
"""
