"""Sizes, times, ports, templates, tables."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemel.cli import output, template, text
from gemel.errors import InvalidInput


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0B"), (999, "999B"), (1000, "1kB"), (1_234_567, "1.235MB"), (2_130_000, "2.13MB")],
)
def test_decimal_sizes_are_dockers(count: int, words: str) -> None:
    assert text.decimal_size(count) == words


def test_binary_sizes() -> None:
    assert text.binary_size(0) == "0B"
    assert text.binary_size(1536 * 1024) == "1.5MiB"


@pytest.mark.parametrize(
    ("words", "count"),
    [("64", 64), ("1k", 1024), ("512m", 512 << 20), ("1.5g", 3 << 29), ("2GiB", 2 << 30)],
)
def test_sizes_are_read(words: str, count: int) -> None:
    assert text.parse_size(words) == count


@pytest.mark.parametrize("words", ["", "m", "1x", "-1", "1 2"])
def test_no_sizes(words: str) -> None:
    with pytest.raises(ValueError, match="no size"):
        text.parse_size(words)


@pytest.mark.parametrize(
    ("words", "seconds"), [("10", 10), ("1m30s", 90), ("500ms", 0.5), ("2h", 7200)]
)
def test_durations(words: str, seconds: float) -> None:
    assert text.parse_span(words) == pytest.approx(seconds)


@given(st.text(max_size=12))
def test_durations_never_fail_otherwise(words: str) -> None:
    try:
        assert text.parse_span(words) >= 0
    except ValueError:
        pass


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (150, "2 minutes"),
        (3700, "About an hour"),
        (7200, "2 hours"),
        (3 * 86400, "3 days"),
        (20 * 86400, "2 weeks"),
        (90 * 86400, "3 months"),
        (800 * 86400, "2 years"),
    ],
)
def test_ages(seconds: float, words: str) -> None:
    assert text.ago(seconds) == words


def test_moments() -> None:
    assert text.epoch("1970-01-01T00:00:10.5Z") == 10.5
    assert text.epoch("1970-01-01T01:00:10+01:00") == 10
    assert text.epoch("0001-01-01T00:00:00Z") == 0
    assert text.since("10m", now=1000) == "400.000000000"
    assert text.since("1700000000.5") == "1700000000.5"
    assert text.since("2001-09-09") == "999993600.000000000"
    with pytest.raises(ValueError, match="no duration"):
        text.since("yesterday")


def test_ports_in_a_cell() -> None:
    ports = [
        {"PrivatePort": 9000, "Type": "tcp"},
        {"IP": "127.0.0.1", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"IP": "::", "PrivatePort": 53, "PublicPort": 53, "Type": "udp"},
    ]
    assert text.ports(ports) == "[::]:53->53/udp, 127.0.0.1:8080->80/tcp, 9000/tcp"


DATA = {"Name": "web", "State": {"Status": "running"}, "Nets": {"a": {"IP": "1"}}, "L": ["x", "y"]}


@pytest.mark.parametrize(
    ("form", "result"),
    [
        ("{{.Name}}", "web"),
        ("{{ .State.Status }}!", "running!"),
        ("{{json .L}}", '["x","y"]'),
        ('{{join .L ","}}', "x,y"),
        ("{{range .Nets}}{{.IP}} {{end}}", "1 "),
        ("{{range $k, $v := .Nets}}{{$k}}={{$v.IP}}{{end}}", "a=1"),
        ('{{index .Nets "a" "IP"}}', "1"),
        ("{{if .None}}a{{else}}b{{end}}", "b"),
        ("{{len .L}}", "2"),
        ("{{.None}}", "<no value>"),
        ("{{.Name | upper}}", "WEB"),
    ],
)
def test_templates(form: str, result: str) -> None:
    assert template.render(form, DATA) == result


@pytest.mark.parametrize("form", ["{{range .L}}", "{{nosuch .L}}", "{{end}}", "{{}}"])
def test_bad_templates_are_told(form: str) -> None:
    with pytest.raises(InvalidInput, match="template not understood"):
        template.render(form, DATA)


def test_a_table_is_as_wide_as_its_cells() -> None:
    rows = [{"a": "long one", "b": 1}, {"a": "x", "b": None}]
    assert output.table(rows, [("A", "a"), ("B", "b")]) == "A          B\nlong one   1\nx"


def test_a_table_template_has_titles(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"Name": "web", "State": "up"}]
    output.emit(rows, [("NAME", "Name"), ("STATE", "State")], r"table {{.Name}}\t{{.State}}")
    assert capsys.readouterr().out == "NAME   STATE\nweb    up\n"
