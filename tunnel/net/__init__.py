"""The Trio runtime: TLS, the link, and what carries the bytes of connections over it."""
