"""Every key of every message with every wrong type, and without; names that may be shown."""

import pytest

from tests.protocol.parts import frame
from tunnel.errors import RemoteProtocolError
from tunnel.protocol.messages import Unknown, decode

CAPABILITIES = {
    "max_frame": 65_536,
    "max_streams": 100,
    "backlog": 10,
    "window": 262_144,
    "features": ["datagrams"],
}
PROXY = {
    "name": "网站",
    "publish_addr": "*",
    "publish_port": 80,
    "preferred_port": 81,
    "local_port": 82,
    "visitors_only": True,
    "allow_visitors": ["家里"],
    "visit_nonce": "00" * 32,
}
VISITOR = {"id": 3, "name": "数据库", "publish_port": 5432, "owner": "家里"}
ADDRESS = {"host": "::", "port": 80}
MESSAGES = {
    "challenge": {"version": 1, "bindings": ["certificate"], "nonce": "00" * 32},
    "authenticate": {
        "version": 1,
        "binding": "certificate",
        "nonce": "00" * 32,
        "key_id": "00" * 16,
        "name": "家里",
        "client_id": "00" * 16,
        "instance_id": "00" * 16,
        "attempt": 1,
        "capabilities": CAPABILITIES,
    },
    "proof": {"mac": "00" * 32},
    "authenticated": {
        "session": "00" * 16,
        "name": "家里",
        "server_version": "2.0",
        "capabilities": CAPABILITIES,
    },
    "refused": {"code": "busy", "text": "later", "retry_after": 5},
    "configure": {"proxies": [PROXY], "visitors": [VISITOR]},
    "configured": {
        "proxies": [
            {"id": 0, "bound": [ADDRESS]},
            {"id": 1, "rejected": {"code": "in_use", "text": "busy"}},
        ]
    },
    "bound": {"id": 0, "bound": [ADDRESS]},
    "stopping": {},
    "target": {
        "id": 3,
        "owner": "家里",
        "publish_port": 5432,
        "nonce": "00" * 32,
        "reason": "not connected",
    },
}
OPTIONAL = {
    "owner",
    "reason",
    "visitors_only",
    "allow_visitors",
    "visit_nonce",
    "bindings",
    "capabilities",
    *CAPABILITIES,
    "retry_after",
    "visitors",
    "preferred_port",
    "local_port",
}
WRONG = {
    "null": None,
    "a boolean": True,
    "a number": 7,
    "a fraction": 7.5,
    "a text": "seven",
    "a list": [],
    "an object": {},
}


def places(value, way=()):
    """Every place in a message, as the steps that lead there."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in pairs:
        yield (*way, key)
        if isinstance(inner, dict | list):
            yield from places(inner, (*way, key))


def changed(value, way, change):
    """A copy with the value at one place changed; None removes it."""
    if not way:
        return change(value)
    copy = dict(value) if isinstance(value, dict) else list(value)
    inner = changed(copy[way[0]], way[1:], change)
    if inner is ...:
        del copy[way[0]]
    else:
        copy[way[0]] = inner
    return copy


PLACES = [(kind, way) for kind, message in MESSAGES.items() for way in places(message)]


def show(value):
    return ".".join(map(str, value)) if isinstance(value, tuple) else None


@pytest.mark.parametrize("kind", MESSAGES)
def test_the_messages_here_are_right(kind):
    assert not isinstance(decode(frame({"type": kind} | MESSAGES[kind])), Unknown)


@pytest.mark.parametrize(("kind", "way"), PLACES, ids=show)
def test_every_wrong_type_is_refused(kind, way):
    for name, wrong in WRONG.items():
        message = changed(MESSAGES[kind], way, lambda _old, wrong=wrong: wrong)
        old = MESSAGES[kind]
        for step in way:
            old = old[step]
        if type(old) is type(wrong) or way[-1] == "retry_after":
            continue  # a hint that is odd is no hint
        with pytest.raises(RemoteProtocolError) as caught:
            decode(frame({"type": kind} | message))
        assert str(caught.value).startswith(f"{kind}: "), name


@pytest.mark.parametrize(("kind", "way"), PLACES, ids=show)
def test_every_key_that_is_missing(kind, way):
    wire = frame({"type": kind} | changed(MESSAGES[kind], way, lambda _old: ...))
    an_entry = isinstance(way[-1], int)
    if way[-1] in OPTIONAL or an_entry or (kind == "target" and way[-1] != "id"):
        decode(wire)
        return
    with pytest.raises(RemoteProtocolError) as caught:
        decode(wire)
    assert str(caught.value).startswith(f"{kind}: ")


@pytest.mark.parametrize("kind", MESSAGES)
@pytest.mark.parametrize("odd", [*WRONG.values(), ""])
def test_the_type_of_a_message_is_a_text(kind, odd):
    wire = frame(MESSAGES[kind] | {"type": odd})
    if isinstance(odd, str):
        assert decode(wire) == Unknown(odd)
        return
    with pytest.raises(RemoteProtocolError, match="type is not a text"):
        decode(wire)


def test_a_message_without_a_type():
    with pytest.raises(RemoteProtocolError, match="type is missing"):
        decode(frame({"mac": "00" * 32}))


@pytest.mark.parametrize("kind", MESSAGES)
def test_unknown_keys_are_ignored_at_every_depth(kind):
    def more(value):
        if isinstance(value, dict):
            return {key: more(inner) for key, inner in value.items()} | {"later": [{"x": None}]}
        return [more(inner) for inner in value] if isinstance(value, list) else value

    known = {"type": kind} | MESSAGES[kind]
    assert decode(frame(more(known))) == decode(frame(known))


# --- Names ----------------------------------------------------------------------------------------

GOOD = [
    "a",
    "办公室的电脑",
    "Büro",
    "ホーム",
    "a b",
    "x" * 64,
    "网" * 64,
    "日本\U00020000",
    "1.2_3-4",
]
BAD = {
    "nothing": "",
    "a space": " ",
    "a space before": " a",
    "a space behind": "a ",
    "a wide space behind": "a\u3000",
    "a line break behind": "a\n",
    "65 characters": "x" * 65,
    "a line break": "a\nb",
    "NUL": "a\0b",
    "escape": "a\x1b[2Jb",
    "delete": "a\x7fb",
    "a C1 control": "a\x9bb",
    "right-to-left override": "a\u202eb",
    "right-to-left mark": "a\u200fb",
    "an isolate": "a\u2066b",
    "a zero-width space": "a\u200bb",
    "a zero-width joiner": "a\u200db",
    "a word joiner": "a\u2060b",
    "a byte order mark": "a\ufeffb",
    "a soft hyphen": "a\u00adb",
    "a tag": "a\U000e0041b",
    "a line separator": "a\u2028b",
    "a paragraph separator": "a\u2029b",
    "an unassigned character": "a\u0378b",
    "a letter and an accent": "Bu\u0308ro",
    "a character that is another": "\u212b",
}
NAMED = [("authenticate", ("name",)), ("authenticated", ("name",)), ("configure", ("proxies", 0))]


def named(kind, way, name):
    way = way if way[-1] == "name" else (*way, "name")
    return frame({"type": kind} | changed(MESSAGES[kind], way, lambda _old: name))


@pytest.mark.parametrize(("kind", "way"), NAMED)
@pytest.mark.parametrize("name", GOOD)
def test_a_good_name(kind, way, name):
    message = decode(named(kind, way, name))
    assert name == (message.proxies[0].name if kind == "configure" else message.name)


@pytest.mark.parametrize(("kind", "way"), NAMED)
@pytest.mark.parametrize("name", BAD)
def test_a_name_that_would_change_how_a_line_is_read(kind, way, name):
    with pytest.raises(RemoteProtocolError, match=f"^{kind}: name ") as caught:
        decode(named(kind, way, BAD[name]))
    assert str(caught.value).isprintable()
