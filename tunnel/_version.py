"""The version, read by the build and by `tls-tunnel --version`."""

__version__ = "0.1.0"
