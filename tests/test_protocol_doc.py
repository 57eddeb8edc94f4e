"""The protocol's page says what the code does: codes, keys, bounds and numbers."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import pytest

from tunnel import limits
from tunnel.errors import RemoteProtocolError
from tunnel.model import Address, RefusalCode, RejectionCode, ResetCode
from tunnel.net.contexts import ALPN
from tunnel.protocol import messages
from tunnel.protocol.framing import encode_frame, frame_body
from tunnel.protocol.messages import (
    Authenticate,
    Authenticated,
    Bound,
    Capabilities,
    Challenge,
    Configure,
    Configured,
    Proof,
    ProxyRequest,
    Reconfigure,
    Reconfigured,
    RefusedMessage,
    Rejected,
    Stopping,
    Target,
    VisitorRequest,
)
from tunnel.server.session import OWN

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")

#: What the protocol's and Yamux's code uses and no peer can see.
NOT_ON_THE_WIRE = {
    "BATCH",
    "FOREIGN_INBOUND_STREAMS",
    "LINK_QUEUE",
    "RTT_VALIDITY",
    "STREAM_QUEUE",
}


def section(title: str) -> str:
    """What is under a title, up to the next title of whatever level."""
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#|\Z)", PAGE, re.DOTALL | re.MULTILINE)
    assert found, f"there is no section {title}"
    return found[1]


def rows(title: str) -> list[list[str]]:
    """The cells of the first table of a section that has code in its first or second column."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]
    return [row for row in cells if row[0].strip("`") != row[0] or row[0].isdigit()]


# --- Codes and numbers -----------------------------------------------------------------------


def test_every_refusal_code():
    assert {row[0] for row in rows("Refusals")} == {f"`{code}`" for code in RefusalCode}


def test_every_rejection_code_and_whether_it_passes():
    found = {row[0]: row[2] for row in rows("Ports")}
    assert set(found) == {f"`{code}`" for code in RejectionCode}
    assert {code for code in RejectionCode if found[f"`{code}`"] == "yes"} == {
        code for code in RejectionCode if code.passes
    }


def test_every_reset_code_with_its_number():
    found = {(row[0], row[1]) for row in rows("Reset codes")}
    assert found == {(str(code.value), f"`{code.name}`") for code in ResetCode}


def test_the_name_of_the_protocol():
    assert f"exactly `{ALPN}`" in section("TLS")


def numbers() -> dict[str, str]:
    return {row[0].strip("`"): row[1] for row in rows("Numbers")}


def test_every_number_is_that_of_the_code():
    assert {name: float(value) for name, value in numbers().items()} == {
        name: float(getattr(limits, name)) for name in numbers()
    }


def test_every_limit_of_the_wire_is_among_the_numbers():
    sources = [*ROOT.glob("tunnel/protocol/*.py"), *ROOT.glob("tunnel/yamux/*.py")]
    used = set()
    for source in sources:
        used |= set(re.findall(r"limits\.([A-Z_]+)", source.read_text(encoding="utf-8")))
    assert used - NOT_ON_THE_WIRE <= set(numbers())
    assert used >= NOT_ON_THE_WIRE


def test_every_limit_that_the_text_names_is_among_the_numbers():
    prose = PAGE.partition("\n## Numbers\n")[0]
    named = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)`", prose))
    others = {code.name for code in ResetCode} | {"GO_AWAY", "WINDOW_UPDATE", "PP2_TYPE_UNIQUE_ID"}
    assert named - others <= set(numbers())


# --- Messages --------------------------------------------------------------------------------

CAPABILITIES = Capabilities(features=("one",))
BOUND = Bound(0, (Address("::1", 80),))
REQUEST = ProxyRequest("name", "*", 80, 0, 80, ("::/0",), True, ("name",), bytes(32))
VISITOR = VisitorRequest(0, "name", 80, "name")
SAMPLES = {
    "1 `challenge`": Challenge(1, ("certificate",), bytes(32)),
    "2a `authenticate`": Authenticate(
        1, "certificate", bytes(32), bytes(16), "name", "0" * 32, "1" * 32, 1, CAPABILITIES
    ),
    "2b and 3b `proof`": Proof(bytes(32)),
    "3a `authenticated`": Authenticated("0" * 32, "name", "2.0", CAPABILITIES),
    "4 `configure`": Configure((REQUEST,), (VISITOR,)),
    "5 `configured`": Configured((BOUND, Rejected(1, RejectionCode.IN_USE, "why"))),
    "`refused`": RefusedMessage(RefusalCode.BUSY, "why", 5.0),
    "`bound`": BOUND,
    "`rejected`": Rejected(0, RejectionCode.NOT_ALLOWED, "why"),
    "`reconfigure`": Reconfigure((1000,), ((0, REQUEST),), (VISITOR,)),
    "`reconfigured`": Reconfigured((BOUND, Rejected(1, RejectionCode.IN_USE, "why"))),
    "`stopping`": Stopping(),
    "`target`": Target(0, "name", 80, bytes(32), "why"),
}


def body(message: messages.Message) -> dict[str, object]:
    """The message's JSON."""
    value: dict[str, object] = json.loads(frame_body(messages.encode(message)))
    return value


def paths(value: object, prefix: str = "") -> set[str]:
    """Every key of an object as the page writes it: `a`, `a.b`, `a[].b`."""
    if isinstance(value, list):
        return set().union(*(paths(entry, f"{prefix}[]") for entry in value))
    if not isinstance(value, dict):
        return set()
    found = set()
    for key, inner in value.items():
        path = f"{prefix}.{key}" if prefix else key
        found |= {path} | paths(inner, path)
    return found


def table(title: str) -> dict[str, list[str]]:
    return {row[0].strip("`"): row[1:] for row in rows(title)}


def test_every_kind_of_message_has_a_section():
    assert {message.kind for message in SAMPLES.values()} == set(messages._READERS)
    for title, message in SAMPLES.items():
        assert f"`{message.kind}`" in title
        assert table(title)["type"][2] == f'`"{message.kind}"`'


@pytest.mark.parametrize("title", SAMPLES)
def test_every_key_of_a_message(title):
    assert set(table(title)) == paths(body(SAMPLES[title]))


def places(value: object, path: str):
    """Where the value has that key: the object and the key's own name."""
    head, _, rest = path.partition(".")
    key = head.removesuffix("[]")
    for entry in value if isinstance(value, list) else [value]:
        if key in entry:
            yield from places(entry[key], rest) if rest else [(entry, key)]


def read(value: dict[str, object]) -> messages.Message | messages.Unknown:
    return messages.decode(encode_frame(value))


def changed(message: messages.Message, path: str, change) -> dict[str, object]:
    value = copy.deepcopy(body(message))
    place, key = next(iter(places(value, path)))
    place[key] = change(place[key])
    return value


def number(text: str) -> int:
    known = {"2³²−1": 2**32 - 1, "2⁵³": 2**53}
    if text.startswith("`"):
        return getattr(limits, text.strip("`"))
    return known[text] if text in known else int(text)


def columns(index: int, pattern: str) -> list[tuple[object, ...]]:
    """Title, path and what the pattern finds in that column, of every table of messages."""
    found = []
    for title in SAMPLES:
        for path, row in table(title).items():
            if match := re.search(pattern, row[index]):
                found.append((title, path, *match.groups()))
    return found


@pytest.mark.parametrize(("title", "path", "low", "high"), columns(0, r"^integer, (\S+) to (\S+)$"))
def test_the_bounds_of_an_integer(title, path, low, high):
    message = SAMPLES[title]
    least, most = number(low), number(high)
    for value in (least, most):
        read(changed(message, path, lambda _, value=value: value))
    for value in (least - 1, most + 1, float(least), True, str(least)):
        with pytest.raises(RemoteProtocolError):
            read(changed(message, path, lambda _, value=value: value))


@pytest.mark.parametrize(("title", "path", "most"), columns(0, r"^text, at most (\S+) characters$"))
def test_the_length_of_a_text(title, path, most):
    read(changed(SAMPLES[title], path, lambda _: "x" * number(most)))
    with pytest.raises(RemoteProtocolError):
        read(changed(SAMPLES[title], path, lambda _: "x" * (number(most) + 1)))


@pytest.mark.parametrize(("title", "path", "size"), columns(0, r"^hex (\d+)$"))
def test_the_size_of_hexadecimal_digits(title, path, size):
    digits = "a0" * int(size)
    read(changed(SAMPLES[title], path, lambda _: digits))
    for wrong in (digits[:-1], digits + "0", digits.upper(), " " + digits[1:]):
        with pytest.raises(RemoteProtocolError):
            read(changed(SAMPLES[title], path, lambda _, wrong=wrong: wrong))


@pytest.mark.parametrize(("title", "path"), columns(0, r"^name$"))
def test_a_name(title, path):
    read(changed(SAMPLES[title], path, lambda _: "名" * limits.MAX_NAME_LENGTH))
    for wrong in ("", "x" * (limits.MAX_NAME_LENGTH + 1), " x", "e\u0301", "\u202e", "\n"):
        with pytest.raises(RemoteProtocolError):
            read(changed(SAMPLES[title], path, lambda _, wrong=wrong: wrong))


@pytest.mark.parametrize(("title", "path"), columns(0, r"^host$"))
def test_a_host(title, path):
    for right in ("*", "192.0.2.1", "::", "fe80::1%eth0", "fe80::1%" + "x" * 15):
        read(changed(SAMPLES[title], path, lambda _, right=right: right))
    for wrong in ("", "localhost", "[::]", "fe80::1%", "fe80::1%" + "x" * 16):
        with pytest.raises(RemoteProtocolError):
            read(changed(SAMPLES[title], path, lambda _, wrong=wrong: wrong))


@pytest.mark.parametrize(("title", "path"), columns(0, r" networks$"))
def test_a_network(title, path):
    longest = "1111:" * 6 + "255.255.255.255/128"
    assert len(longest) == limits.MAX_NETWORK_LENGTH
    for right in ("192.0.2.0/24", "0.0.0.0/0", "::/0", "2001:db8::1/128", longest):
        read(changed(SAMPLES[title], path, lambda _, right=right: [right]))
    for wrong in ("", "192.0.2.0", "192.0.2.1/24", "::/129", "fe80::%1/64", "10.0.0.0/255.0.0.0"):
        with pytest.raises(RemoteProtocolError):
            read(changed(SAMPLES[title], path, lambda _, wrong=wrong: [wrong]))


def entries(first: object, count: int) -> list[object]:
    """As many entries like the first, told apart where that matters."""
    if not isinstance(first, dict):
        return [first] * count
    own = {"name": "n{}", "id": None}
    return [
        first | {key: text.format(i) if text else i for key, text in own.items() if key in first}
        for i in range(count)
    ]


@pytest.mark.parametrize(
    ("title", "path", "low", "high"),
    columns(0, r"^list of (?:(\d+) to|at most) (\S+) (?:objects|texts|networks)"),
)
def test_the_length_of_a_list(title, path, low, high):
    message = SAMPLES[title]
    least, most = int(low or 0), number(high)
    for count in (least, most):
        read(changed(message, path, lambda old, count=count: entries(old[0], count)))
    for count in {most + 1, least - 1} - {-1}:
        with pytest.raises(RemoteProtocolError):
            read(changed(message, path, lambda old, count=count: entries(old[0], count)))


@pytest.mark.parametrize(("title", "path", "most"), columns(0, r" texts of at most (\d+) char"))
def test_the_length_of_the_texts_in_a_list(title, path, most):
    read(changed(SAMPLES[title], path, lambda _: ["x" * int(most)]))
    with pytest.raises(RemoteProtocolError):
        read(changed(SAMPLES[title], path, lambda _: ["x" * (int(most) + 1)]))


@pytest.mark.parametrize("title", SAMPLES)
def test_what_has_no_default_must_be_there(title):
    known = {"`[]`": [], "`{}`": {}, "0": 0}
    alternatives = {"proxies[].bound", "proxies[].rejected"}
    for path, row in table(title).items():
        without = body(SAMPLES[title])
        for place, key in list(places(without, path)):
            del place[key]
        default = row[1]
        if default == "absent":
            read(without)
        elif default:
            value = known[default] if default in known else number(default)
            with_default = body(SAMPLES[title])
            for place, key in places(with_default, path):
                place[key] = value
            assert read(without) == read(with_default), path
        elif path not in alternatives:
            with pytest.raises(RemoteProtocolError):
                read(without)


def test_another_version_is_known_by_that_alone():
    for kind in ("challenge", "authenticate"):
        assert read({"type": kind, "version": 2}) == messages.Unknown(kind, 2)


def test_what_capabilities_announces():
    own = OWN.to_json()
    found = {row[0].strip("`"): row[1] for row in rows("Capabilities")}
    assert set(found) == set(own)
    for key, value in own.items():
        said = found[key].strip("`")
        assert (json.loads(said) if isinstance(value, list) else number(found[key])) == value
