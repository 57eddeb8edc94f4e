"""The client: it connects to the server, and the server's visitors to local services."""
