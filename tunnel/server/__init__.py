"""The server: clients connect to it, visitors reach them through it."""
