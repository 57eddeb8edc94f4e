"""The tunnel protocol, without I/O: keys, frames, messages, handshake, preamble."""
