"""What the soak calls flat, and how it draws it."""

from xml.etree import ElementTree as ET

import pytest

from tests.reliability.flatness import Series, growth, is_flat, picture, slope


def series(*values, every=10.0):
    return Series("server", "MiB", tuple((every * n, value) for n, value in enumerate(values)))


def test_a_line_has_its_slope():
    assert slope([(0, 1), (10, 21), (20, 41)]) == 2


def test_one_sample_far_off_does_not_matter():
    samples = [(n, 5.0) for n in range(20)]
    samples[7] = (7, 500.0)
    assert slope(samples) == 0


def test_the_warming_up_does_not_count():
    assert growth(series(10, 20, 30, 40, 40, 40, 40, 40)) == 0


def test_a_leak_is_not_flat():
    leak = series(*range(100, 200, 5))
    assert growth(leak) == pytest.approx(45)
    assert not is_flat(leak, share=0.05, least=2)
    assert is_flat(series(*[100.0, 101.0] * 10), share=0.05, least=2)


def test_shrinking_is_flat():
    assert is_flat(series(*range(200, 100, -5)), share=0.0, least=0)


def test_the_picture_is_a_picture():
    text = picture(
        "A soak", [("memory", [series(1, 2, 3), series(3, 2, 1)]), ("tasks", [series(0)])]
    )
    root = ET.fromstring(text)
    assert len(root.findall("{*}polyline")) == 3
    assert "A soak" in text
