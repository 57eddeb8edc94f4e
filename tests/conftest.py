import pytest
from hypothesis import settings

from tests.needs import pytest_make_collect_report, pytest_runtest_makereport
from tests.rig import make_certificate

# Hooks: with REQUIRE_ALL=1 a test that cannot run has failed.
__all__ = ["pytest_make_collect_report", "pytest_runtest_makereport"]

# The same examples every time, and no verdict from a slow machine; `make fuzz` looks for new ones.
settings.register_profile("tests", deadline=None, derandomize=True)
settings.load_profile("tests")


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A directory with cert.pem, key.pem and ca.pem."""
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(params=["hub", "relay"])
def carrier(request):
    """What carries sockets: every promise holds for both."""
    return request.param
