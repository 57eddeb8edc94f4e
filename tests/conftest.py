import pytest

from tests.rig import make_certificate


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A directory with cert.pem, key.pem and ca.pem."""
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(params=["hub", "relay"])
def carrier(request):
    """What carries sockets: every promise holds for both."""
    return request.param
