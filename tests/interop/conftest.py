import pytest

from tests.interop.libraries import LIBRARIES
from tests.interop.runtime import Setting
from tunnel.model import TRACE
from tunnel.net.contexts import client_context, server_tls
from tunnel.yamux import Role


@pytest.fixture(scope="session")
def contexts(certificate):
    """A server's context and a client's that trusts it."""
    server = server_tls(certificate / "cert.pem", certificate / "key.pem")
    client = client_context(ca_path=certificate / "ca.pem", verify=True, check_hostname=True)
    return server.context, client


@pytest.fixture(params=LIBRARIES, ids=lambda library: library.name)
def library(request):
    """Whose Yamux is at the other end."""
    request.param.check()
    return request.param


@pytest.fixture(params=[Role.CLIENT, Role.SERVER], ids=["we-dial", "we-listen"])
def role(request):
    """What our side is."""
    return request.param


@pytest.fixture
def wire():
    """What Yamux runs over; a test may ask for plain TCP as well."""
    return "tls"


@pytest.fixture
def setting(library, role, wire, contexts, certificate):
    """A link of ours that meets a peer."""
    return Setting(library, role, contexts if wire == "tls" else None, certificate)


@pytest.fixture
def frames(caplog):
    """Gives the frames so far, as (direction, header) pairs."""
    caplog.set_level(TRACE, "tunnel.net.link")

    def collect():
        return [
            (record.direction, record.frame)
            for record in caplog.records
            if record.getMessage() == "Frame"
        ]

    return collect
