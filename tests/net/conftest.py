import pytest

from tests.net.rig import make_contexts


@pytest.fixture(scope="session")
def contexts(tmp_path_factory):
    """A server's context and a client's that trusts it."""
    return make_contexts(tmp_path_factory.mktemp("certificate"))
