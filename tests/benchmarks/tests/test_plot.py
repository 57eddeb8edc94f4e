from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest

from tests.benchmarks.plot import Mark, Scale, plot, scale

SVG = "{http://www.w3.org/2000/svg}"


def mark(row="bulk", peer="Go", median=2.0, quartiles=(1.5, 2.5), extremes=(1.0, 4.0), **more):
    return Mark(row, peer, median, quartiles, extremes, **more)


def parsed(*marks):
    return ET.fromstring(plot("Tunnels", marks))


def texts(*marks):
    return [element.text for element in parsed(*marks).iter(f"{SVG}text")]


def medians(*marks):
    return [circle for circle in parsed(*marks).iter(f"{SVG}circle") if len(circle)]


def test_axis_is_logarithmic():
    axis = Scale(0.1, 10)
    assert axis(1) - axis(0.1) == pytest.approx(axis(10) - axis(1))


def test_axis_has_room_for_everything():
    axis = scale([mark(extremes=(0.02, 30.0), promised=50.0)])
    assert axis.least < 0.02
    assert axis.most > 50


def test_axis_has_a_1_in_it():
    axis = scale([mark(median=8, quartiles=(7, 9), extremes=(6, 10))])
    assert axis.least < 1 < axis.most


def test_ticks():
    assert list(Scale(0.4, 25).ticks()) == [0.5, 1, 2, 5, 10, 20]


def test_every_row_once_and_every_peer():
    told = texts(mark(), mark(peer="ssh"), mark("requests"))
    assert [told.count(word) for word in ("bulk", "requests", "Go", "ssh")] == [1, 1, 1, 1]


def test_peers_are_told_apart():
    one, other, again = medians(mark(), mark(peer="ssh"), mark("requests"))
    assert one.get("fill") == again.get("fill") != other.get("fill")


def test_median_is_in_its_place():
    [circle] = medians(mark())
    assert float(circle.get("cx")) == scale([mark()])(2.0)


def test_spread_is_drawn():
    axis = scale([mark()])
    ends = {(line.get("x1"), line.get("x2")) for line in parsed(mark()).iter(f"{SVG}line")}
    assert (str(axis(1.0)), str(axis(4.0))) in ends
    assert (str(axis(1.5)), str(axis(2.5))) in ends


def test_promise_is_drawn():
    def promises(shown):
        return [line for line in parsed(shown).iter(f"{SVG}line") if line.get("class") == "promise"]

    assert not promises(mark())
    [line] = promises(mark(promised=1.35))
    assert line.get("x1") == str(scale([mark(promised=1.35)])(1.35))


def test_what_is_not_sure_is_hollow():
    [circle] = medians(mark(sure=False))
    assert circle.get("fill") is None
    assert circle[0].text.endswith("(not sure)")


def test_names_are_escaped():
    assert "<&>" in texts(mark(peer="<&>"))


def test_everything_is_inside():
    root = parsed(*(mark(f"row {number}") for number in range(20)))
    height = float(root.get("height"))
    for element in root.iter():
        for name in ("y", "y1", "y2", "cy"):
            assert 0 <= float(element.get(name, 0)) <= height


def test_no_marks():
    assert texts()[0] == "Tunnels"


def test_dark_and_light():
    assert re.search(r"prefers-color-scheme: dark", plot("", []))
