"""The page in a browser, against a live tunnel."""

from __future__ import annotations

import json
import re

import pytest
import trio

from tests.page.rig import NAUGHTY, cells, expect, look, traffic, tunnel

pytest.importorskip("axe_playwright_python", reason="pip install --group page")
from axe_playwright_python.sync_playwright import Axe

pytestmark = pytest.mark.e2e

STATE = "#state"
BANNER = "#banner"


@pytest.mark.parametrize("locale", ["en-GB", "zh-CN"])
async def test_the_rules_of_axe_hold(tmp_path, certificate, locale):
    def check(page):
        expect(page.locator("#connections tbody tr")).to_have_count(2)
        expect(page.locator("#events tbody tr").first).to_be_visible()
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            found = Axe().run(page)
            assert found.violations_count == 0, found.generate_report()

    async with tunnel(tmp_path, certificate) as place, traffic(place.address):
        for url in (place.server_url, place.client_url):
            await look(check, url, locale=locale)


async def test_values_move_and_agree_on_both_sides(tmp_path, certificate):
    def check(page):
        sent = cells(page, "proxies", "Sent").first
        before = sent.inner_text()
        expect(sent).not_to_have_text(before)
        expect(cells(page, "proxies", "To visitors").first).to_have_text(re.compile("iB/s"))
        expect(cells(page, "proxies", "Open").first).to_have_text("2")
        expect(page.locator("#throughput-chart path.outward")).to_have_attribute(
            "d", re.compile(r"M.*L.*L")
        )

    def look_at(page):
        expect(page.locator(STATE)).to_have_text(re.compile("running|connected"))
        check(page)

    async with tunnel(tmp_path, certificate) as place, traffic(place.address):
        for url in (place.server_url, place.client_url):
            await look(look_at, url)


async def test_it_says_where_a_connection_waits(tmp_path, certificate):
    def check(page):
        waits = cells(page, "connections", "Waits for")
        row = waits.filter(has_text=re.compile("^visitor$"))
        expect(row).to_have_count(1)
        # Not by colour alone: the mark is another shape, in another place.
        expect(row.locator("svg rect")).to_have_count(1)

    async with tunnel(tmp_path, certificate) as place, traffic(place.address):
        await look(check, place.server_url)


async def test_it_says_that_the_program_is_gone_and_comes_back(tmp_path, certificate):
    def check(page):
        expect(page.locator(STATE)).to_have_text("● running")
        trio.from_thread.run(place.server.kill)
        expect(page.locator(BANNER)).to_contain_text("does not answer: no connection")
        expect(page.locator(STATE)).to_have_text("✕ not reachable")
        # What it last said can still be read.
        expect(cells(page, "proxies", "Proxy")).to_have_text(["web"])

        trio.from_thread.run(start_again)
        expect(page.locator(STATE)).to_have_text("● running")
        expect(page.locator(BANNER)).to_be_empty()
        expect(cells(page, "proxies", "Proxy")).to_have_text(["web"])

    async def start_again():
        await place.lab.start_server(stats_port=port)

    async with tunnel(tmp_path, certificate) as place:
        port = int(place.server_url.rstrip("/").rpartition(":")[2])
        await look(check, place.server_url, may_fail=True)


async def test_a_client_without_its_server(tmp_path, certificate):
    def check(page):
        expect(page.locator(STATE)).to_have_text("● connected")
        trio.from_thread.run(place.server.kill)
        expect(page.locator(STATE)).to_have_text(re.compile("reconnect|connecting"))
        expect(cells(page, "proxies", "Status")).to_have_text(["▲ not published"])
        expect(page.locator("#sessions")).to_contain_text("Not connected.")
        expect(page.locator("#events")).to_contain_text("Connection lost")

    async with tunnel(tmp_path, certificate) as place:
        await look(check, place.client_url)


async def test_a_naughty_name_is_a_name(tmp_path, certificate):
    def check(page):
        expect(cells(page, "proxies", "Proxy")).to_have_text([NAUGHTY])
        assert page.locator("main script").count() == 0

    async with tunnel(tmp_path, certificate, proxy=NAUGHTY) as place, traffic(place.address):
        for url in (place.server_url, place.client_url):
            await look(check, url)


HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "".join(map(chr, range(32))) * 320,  # 10 kB
    "\u202egnp.exe\u2066" * 2000,
    "__proto__",
    "constructor",
    "\ud800",
    "{0}{1}$&",
    "",
]


async def test_answers_full_of_hostile_texts_harm_nothing(tmp_path, certificate):
    """More than the protocol lets through: whatever the program would say, it is text."""

    def spoil(value, text, key=None):
        if isinstance(value, dict):
            return {key: spoil(item, text, key) for key, item in value.items()}
        if isinstance(value, list):
            return [spoil(item, text, key) for item in value]
        return text if isinstance(value, str) and key not in {"role", "process"} else value

    def check(page):
        expect(page.locator("#connections tbody tr")).to_have_count(2)
        page.set_viewport_size({"width": 360, "height": 640})
        for text in HOSTILE:

            def answer(route, _, text=text):
                spoiled = spoil(route.fetch().json(), text)
                route.fulfill(body=json.dumps(spoiled), content_type="application/json")

            for path in ("**/status", "**/events?*"):
                page.unroute(path)
                page.route(path, answer)
            with page.expect_response("**/status"), page.expect_response("**/events?*"):
                pass
            with page.expect_response("**/status"):  # the one before is shown by now
                pass
            expect(page.locator("#proxies tbody tr")).to_have_count(1)
            expect(page.locator("#connections tbody tr")).to_have_count(2)
            width = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert page.evaluate(width) <= 0
            assert len(page.locator("body").inner_text()) < 20_000
            assert not re.search("[\0-\x08\x0b-\x1f\u202e]", page.locator("body").inner_text())
            assert page.locator("main img, main script").count() == 0

    async with tunnel(tmp_path, certificate) as place, traffic(place.address):
        await look(check, place.server_url)


NONSENSE = ["", "nonsense", "null", "[]", '{"role": "server"}', '{"role": "x"}']


async def test_an_answer_that_makes_no_sense(tmp_path, certificate):
    def check(page):
        for body in NONSENSE:
            page.route("**/status", lambda route, _, body=body: route.fulfill(body=body))
            expect(page.locator(BANNER)).to_contain_text("makes no sense")
            page.unroute("**/status")
            expect(page.locator(STATE)).to_have_text("● running")
        # The very first answer.
        page.route("**/status", lambda route: route.fulfill(body='{"role": "server"}'))
        page.reload()
        expect(page.locator(BANNER)).to_contain_text("makes no sense")
        page.unroute("**/status")
        expect(page.locator(STATE)).to_have_text("● running")

    async with tunnel(tmp_path, certificate) as place:
        await look(check, place.server_url)


async def test_it_works_by_keyboard(tmp_path, certificate):
    def check(page):
        expect(page.locator("#proxies tbody tr")).to_have_count(1)
        page.keyboard.press("Tab")
        expect(page.locator("#pause")).to_be_focused()
        outline = "getComputedStyle(document.activeElement).outlineStyle"
        assert page.evaluate(outline) == "solid"
        page.keyboard.press("Space")
        expect(page.locator(STATE)).to_have_text("❚❚ paused")
        page.keyboard.press("Enter")
        expect(page.locator(STATE)).to_have_text("● running")

        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page.locator("#proxies h2")).to_have_text("代理")
        assert page.evaluate("document.documentElement.lang") == "zh-CN"
        page.keyboard.press("Enter")
        expect(page.locator("#proxies h2")).to_have_text("Proxies")

        page.keyboard.press("Tab")  # what may have to be scrolled
        page.keyboard.press("Tab")  # the first column's head
        page.keyboard.press("Enter")
        head = page.locator("#proxies thead th").first
        expect(head).to_have_attribute("aria-sort", "descending")
        assert page.evaluate("document.activeElement.closest('th') !== null")

    async with tunnel(tmp_path, certificate) as place:
        await look(check, place.server_url)


async def test_the_language_is_the_readers_and_is_kept(tmp_path, certificate):
    def check(page):
        expect(page.locator("#proxies h2")).to_have_text("代理")
        page.locator("#language").click()
        expect(page.locator("#proxies h2")).to_have_text("Proxies")
        page.reload()
        expect(page.locator("#proxies h2")).to_have_text("Proxies")

    async with tunnel(tmp_path, certificate) as place:
        await look(check, place.server_url, locale="zh-TW")


async def test_every_word_is_there_in_both_languages(tmp_path, certificate):
    def check(page):
        source = page.locator("script").inner_text()
        tables = re.search(r"const WORDS = (\{.*?^\});", source, re.DOTALL | re.MULTILINE)[1]
        words = page.evaluate(f"() => ({tables})")
        assert words["en"].keys() == words["zh"].keys()
        assert words["en"]["kinds"].keys() == words["zh"]["kinds"].keys()
        used = set(re.findall(r"""say\(\s*["`](\w+)["`]""", source))
        marked = "[...document.querySelectorAll('[data-text]')].map(e => e.dataset.text)"
        used |= set(page.evaluate(marked))
        assert used and used <= words["en"].keys()

    async with tunnel(tmp_path, certificate) as place:
        await look(check, place.server_url)


async def test_it_asks_for_the_token_once(tmp_path, certificate):
    token = "correct-horse-battery-staple"

    def check(page):
        expect(page.locator("#token")).to_be_focused()
        page.keyboard.type("something else")
        page.keyboard.press("Enter")
        expect(page.locator("#token")).to_have_value("")
        page.keyboard.type(token)
        page.keyboard.press("Enter")
        expect(page.locator(STATE)).to_have_text("● running")
        expect(page.locator("#asking")).to_be_hidden()
        for place in (
            "{...localStorage}",
            "{...sessionStorage}",
            "document.cookie",
            "location.href",
        ):
            assert token not in page.evaluate(f"JSON.stringify({place})")

    async with tunnel(tmp_path, certificate, stats_token=token) as place:
        await look(check, place.server_url, may_fail=True)


async def test_it_rests_while_nobody_looks(tmp_path, certificate):
    def check(page):
        expect(page.locator("#proxies tbody tr")).to_have_count(1)
        hide = """hidden => {
            Object.defineProperty(document, "hidden", {value: hidden, configurable: true});
            document.dispatchEvent(new Event("visibilitychange"));
        }"""
        page.evaluate(hide, True)
        page.wait_for_load_state("networkidle")
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.wait_for_timeout(2500)  # two rounds and a half
        assert not asked
        page.evaluate(hide, False)
        with page.expect_response("**/status"):
            pass

    async with tunnel(tmp_path, certificate) as place:
        await look(check, place.server_url)


async def test_it_asks_nobody_else(tmp_path, certificate):
    def check(page):
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.reload()
        expect(page.locator("#proxies tbody tr")).to_have_count(1)
        assert place.server_url in asked
        assert all(url.startswith(place.server_url) for url in asked)

    async with tunnel(tmp_path, certificate) as place:
        await look(check, place.server_url)


async def test_the_policy_lets_nothing_else_run(tmp_path, certificate):
    """The guard behind the guard: what gets into the page all the same is not run."""

    def check(page):
        expect(page.locator("#proxies tbody tr")).to_have_count(1)
        with pytest.raises(Exception, match="TrustedHTML"):
            page.evaluate("document.body.innerHTML = '<b>'")
        page.evaluate("""() => {
            window.blocked = new Promise(resolve => document.addEventListener(
                "securitypolicyviolation", event => resolve(event.effectiveDirective)));
            fetch("http://127.0.0.1:1/").catch(() => {});
        }""")
        assert page.evaluate("blocked") == "connect-src"

    async with tunnel(tmp_path, certificate) as place:
        await look(check, place.server_url, may_complain=True)
