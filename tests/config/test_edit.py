from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.config import ProxyConfig, VisitorConfig, client_template, load_client
from tunnel.config.edit import add_proxy, add_visitor, remove_proxy
from tunnel.errors import ConfigError

HEAD = "# mine\n[client]   # c\nserver_addr = 'x.example'\nauth_key = 'aaaaaaaaaaaaaaaaaaaa'\n"
WEB = '\n# the web\n[[proxies]]\nname = "web"\npublish_port = 80 # p\nlocal_port = 3000\n'
API = '\n# two\n# lines\n[[proxies]]\nlocal_port = 1\npublish_port = 81\nname = "api"\n# inside\n'
VISITOR = '\n[[visitors]]\nname = "db"\npublish_port = 1\nbind_port = 2\n'
SSH = ProxyConfig(name="ssh", publish_port=2222, local_port=22)


def load(text):
    return load_client(text, source="c", environ={}, idle=True).value


def add(text, proxy=SSH, **environ):
    return add_proxy(text, proxy, source="c", environ=environ)


def visit(text, visitor):
    return add_visitor(text, visitor, source="c", environ={})


def remove(text, name):
    return remove_proxy(text, name, source="c", environ={})


@pytest.mark.parametrize("rest", ["", WEB, WEB + API, VISITOR, WEB + VISITOR])
def test_what_is_added_comes_last_and_nothing_else_changes(rest):
    text = HEAD + rest
    assert add(text) == (
        text + '\n[[proxies]]\nname = "ssh"\npublish_port = 2222\nlocal_port = 22\n'
    )
    assert load(add(text)).proxies == (*load(text).proxies, SSH)


def test_a_file_without_a_newline_at_its_end():
    assert add((HEAD + WEB).removesuffix("\n")) == add(HEAD + WEB)


def test_lines_end_as_those_of_the_file():
    text = (HEAD + WEB).replace("\n", "\r\n")
    assert add(text) == add(HEAD + WEB).replace("\n", "\r\n")
    assert remove(add(text), "ssh") == text


def test_every_key_that_says_something_is_written():
    proxy = ProxyConfig(
        name="s",
        publish_addr="::1",
        publish_port=0,
        local_addr='unix:/a"b',
        proxy_protocol="v2",
        allow_from=("192.0.2.0/24", "2001:db8::/32"),
        visitors_only=False,
    )
    assert load(add(HEAD, proxy)).proxies == (proxy,)


def test_a_key_from_the_environment():
    text = HEAD.replace("auth_key", "# ")
    assert add(text, TLS_TUNNEL_AUTH_KEY="b" * 20).startswith(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + WEB.replace("web", "ssh"), "c:8: proxies: there is a proxy 'ssh' already"),
        (HEAD + WEB.replace("80", "2222"), "the same publish_addr and publish_port"),
        (HEAD + "proxies = []\n", "c"),
        ("proxies = []\n" + HEAD, "c"),
        ("[server]\n", "server"),
        ("", "client"),
        ("[client\n", "c:1"),
    ],
)
def test_what_cannot_be_added_to(text, message):
    with pytest.raises(ConfigError, match=message):
        add(text)


@pytest.mark.parametrize(
    ("rest", "name", "left"),
    [
        (WEB + API, "web", API),
        (WEB + API, "api", WEB),
        (API + VISITOR, "api", VISITOR),
        (WEB + API + VISITOR, "api", WEB + VISITOR),
        (VISITOR + WEB, "web", VISITOR),
        (WEB + API + "\n\n", "api", WEB),
    ],
)
def test_what_is_removed_takes_its_comment_along(rest, name, left):
    # The blank line above the comment stays: it parts what was before from what comes now.
    assert remove(HEAD + rest, name).split("\n\n") == (HEAD + left).split("\n\n")


def test_of_a_template_only_the_proxy_goes():
    text = client_template(auth_key="a" * 20)
    assert remove(add(text), "web").startswith(text.partition("\n# [[proxies]]")[0])


def test_characters_that_only_python_takes_for_the_end_of_a_line():
    text = HEAD.replace("mine", "a\x85b\u2028c") + WEB + API
    assert remove(text, "web") == HEAD.replace("mine", "a\x85b\u2028c") + "\n" + API.lstrip("\n")


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        (HEAD + WEB, "db", "there is no proxy 'db'; there is web"),
        (HEAD + VISITOR, "db", "there is no proxy 'db'; there is none"),
        (HEAD + WEB, "web", "there is nothing to do"),
        (
            "proxies = [\n{name='a', publish_port=1, local_port=1},"
            "{name='b', publish_port=2, local_port=1}]\n" + HEAD,
            "a",
            r"c:2: proxies: this is no \[\[proxies\]\] table: edit it by hand",
        ),
    ],
)
def test_what_cannot_be_removed(text, name, message):
    with pytest.raises(ConfigError, match=message):
        remove(text, name)


def test_lines_that_look_like_a_header_are_not_fallen_for():
    odd = API.replace("local_port = 1", 'local_addr = """unix:/\\\n[[x]]"""')
    text = HEAD + WEB + odd + VISITOR
    assert load(text).proxies[1].local_addr == "unix:/[[x]]"
    with pytest.raises(ConfigError):
        remove(text, "api")


comments = st.lists(st.sampled_from(["", "# c", "#", "  # [[proxies]]", "\t"]), max_size=4)


@given(st.lists(comments, min_size=2, max_size=6), st.data())
def test_adding_and_removing_comes_back_to_the_same_file(blocks, data):
    tables = [
        "\n".join([*lines, f"[[proxies]]\nname='p{i}'\npublish_port={i + 1}\nlocal_port=1\n"])
        for i, lines in enumerate(blocks)
    ]
    text = HEAD + "".join(tables)
    assert remove(add(text), "ssh") == text
    gone = data.draw(st.integers(0, len(tables) - 1))
    names = [proxy.name for proxy in load(remove(text, f"p{gone}")).proxies]
    assert names == [f"p{i}" for i in range(len(tables)) if i != gone]


@given(st.text(max_size=200) | st.text("[]proxies\n='\"#{},a1", max_size=80))
def test_any_text_gives_a_text_or_the_documented_error(text):
    for change in (lambda: add(HEAD + text), lambda: remove(HEAD + WEB + text, "web")):
        with contextlib.suppress(ConfigError):
            load(change())


def test_a_result_that_says_something_else_is_refused(monkeypatch):
    monkeypatch.setattr("tunnel.config.edit._end", lambda lines, _: len(lines))
    with pytest.raises(ConfigError, match="cannot tell this table from what is around it"):
        remove(HEAD + WEB + API + VISITOR, "api")


DB = VisitorConfig(name="db", owner="office", bind_port=5432)


@pytest.mark.parametrize("rest", ["", WEB, VISITOR, WEB + VISITOR + API])
def test_a_visitor_is_added_at_the_end_as_well(rest):
    text = HEAD + rest
    assert visit(text, DB) == (
        text + '\n[[visitors]]\nname = "db"\nowner = "office"\nbind_port = 5432\n'
    )
    assert load(visit(text, DB)).visitors == (*load(text).visitors, DB)
    assert load(visit(text, DB)).proxies == load(text).proxies


def test_every_key_of_a_visitor_that_says_something_is_written():
    visitor = VisitorConfig(
        name="数据库", publish_port=1, owner='a"b', bind_addr="::1", bind_port=3, proxy_type="ssh"
    )
    assert load(visit(HEAD, visitor)).visitors == (visitor,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + VISITOR.replace("2", "5432"), "the same bind_addr and bind_port"),
        (HEAD + "visitors = []\n", "c"),
        ("", "client"),
    ],
)
def test_what_no_visitor_can_be_added_to(text, message):
    with pytest.raises(ConfigError, match=message):
        visit(text, DB)
