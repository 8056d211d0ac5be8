"""Files as people mistype them: what they are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from gemel.compose.files import DiskReader
from gemel.compose.loader import load
from gemel.errors import InvalidInput, Unsupported
from tests.unit.compose.support import loaded, project


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('ports: ["80:80"', "compose.yaml:3:12: not YAML: this [ is not closed"),
        ("environment: {A: b", "compose.yaml:3:18: not YAML: this { is not closed"),
        ('command: "sleep 5', "compose.yaml:3:14: not YAML: this quote is not closed"),
    ],
)
def test_what_is_not_closed_is_shown_where_it_begins(line: str, words: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        project(f"services:\n  a:\n    {line}\n    image: x\n")
    assert words in caught.value.details or words in str(caught.value)


def test_files_at_an_address_are_refused_with_words() -> None:
    with pytest.raises(InvalidInput, match=r"a file at an address is not included: https://r/x"):
        project("include: ['https://r/x']\nservices: {a: {image: x}}\n")
    with pytest.raises(Unsupported, match="not read from an address"):
        loaded(use=("https://r/x",))


A = "services:\n  a:\n    image: x\n"
B = "  b:\n    image: y\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"{A}   ports: [a]\n", "4:4: not YAML: this line is indented by 3: it must be 0 or 2"),
        (f"{A}      command: x\n", "4:7: not YAML: this line is indented deeper than line 3"),
        (f"{A}    command: echo a: b\n", '4:20: not YAML: ": " within a text: put the whole'),
        ("services:\n  a:\n    image:x\n    tty: true\n", '3:10: not YAML: a blank is missing aft'),
        (f"{A}    ports:\n    -'80:80'\n", '5:5: not YAML: a blank is missing after "-"'),
        (f"{A}    command: @x\n", "4:14: not YAML: a text cannot begin with @: put it in quotes"),
        (f"{A}\ttty: true\n", "4:1: not YAML: a tab: YAML indents with blanks"),
        (f'{A}    command: "\\d"\n', "4:15: not YAML: no escape within"),
        (f"x-b: &base {{}}\n{A}    <<: *bsae\n", '5:9: not YAML: no anchor &bsae stands above ('),
        (f"{A}    command: *all\n", "4:14: not YAML: no anchor &all stands above; an anchor is"),
        (f"{A}    tty\n{B}", '4:5: not YAML: this is neither "key: value" nor the entry of a list'),
        (f"{A}    command:\n      - x\n      y: z\n", "6:7: not YAML: a list goes on here"),
        (f"{A}    command: x\x07y\n", "4:15: not YAML: a character that must not be there (U+0007"),
        ("x-l: &l [1]\nservices: {a: {<<: *l, image: x}}\n", "2:16: << takes a mapping"),
        ("services:\n  a:\n  image: x\n", '3:3: image belongs to the service "a": indent it'),
        ("a: {image: x}\n", '1:1: unknown key "a" (services stand below "services:", indented)'),
        (f"{A}    replicas: 3\n", '4:5: unknown key "replicas" (it belongs to "deploy")'),
        (f"{A}    stop_grace_period: 10\n", "not the number 10 (with its unit: 10s)"),
        (f"{A}    depends_on: [{{b: {{}}}}]\n{B}", "(leave out the dashes, if a mapping is meant)"),
        (f"{A}    environment: [B: c]\n", "(write B=VALUE, or leave out all the dashes)"),
        (f"{A}volumes: [v]\n", 'volumes must be a mapping, not a list (write "name:" instead of'),
        (f"{A}    ports: ['70000:1']\n", "there is no port 70000; the last one is 65535"),
        (f"{A}    ports: ['1:9-8']\n", "the range 9-8 ends before it begins"),
        (f"{A}    pull_policy: nver\n", '(did you mean "never"?); it must be one of always, never'),
        (f"{A}    command: ${{B?}}\n", "B is missing a value (set it in the environment or in "),
        ("include: ['']\nservices: {a: {image: x}}\n", "1:11: include needs a path"),
        (f"{A}    env_file: ['']\n", "4:16: env file"),
        ("include: [more/c.yaml]\n", "1:11: more/c.yaml does not exist"),
        ("include: [{path: c.yaml, env_file: d.env}]\n", "1:11: env file d.env not found"),
    ],
)  # fmt: skip
def test_words(text: str, words: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        project(text)
    assert words in caught.value.details


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_bytes(f"{A}    hostname: caf".encode() + b"\xe9\n")
    with pytest.raises(InvalidInput) as caught:
        load(cwd=str(tmp_path), env={}, name="p", reader=DiskReader())
    assert "compose.yaml:4:18: the byte 0xe9 is no text" in caught.value.details
    (tmp_path / "compose.yaml").write_bytes(A.encode("utf-16"))
    assert load(cwd=str(tmp_path), env={}, name="p", reader=DiskReader()).project.services


def test_the_caret_stands_below_the_word_on_a_terminal() -> None:
    with pytest.raises(InvalidInput) as caught:
        project(f"{A}    labels: {{名前: e\u0301, wrong: []}}\n")
    _, line, caret = caught.value.details.split("\n")
    wide, marks = 2, 1  # two characters of double width, one that takes no room
    assert caret.index("^") == line.index("[]") + wide - marks


def test_many_mistakes_are_counted_and_the_first_shown() -> None:
    services = "".join(f"  s{n}: {{image: x, imgae: y}}\n" for n in range(1500))
    with pytest.raises(InvalidInput, match=r"1500 errors in compose\.yaml") as caught:
        project(f"services:\n{services}")
    lines = caught.value.details.split("\n")
    assert lines[-1] == "… and 1450 more"
    assert len(lines) == 3 * 50 + 1


def test_files_are_told_of_in_their_order() -> None:
    files = {
        "z.yaml": "services: {a: {image: x, networks: [n]}}",
        "a.yaml": "services: {b: {image: x, c: d}}",
    }
    with pytest.raises(InvalidInput, match=r"errors in z\.yaml, a\.yaml") as caught:
        loaded(files=files, use=("z.yaml", "a.yaml"))
    assert caught.value.details.startswith("z.yaml:1:37: undefined network")


def test_nothing_is_told_of_what_a_file_that_cannot_be_read_may_hold() -> None:
    text = "include: [gone.yaml]\nservices: {a: {depends_on: [b], networks: [n], tty: [1]}}\n"
    with pytest.raises(InvalidInput, match="2 errors") as caught:
        project(text)
    assert "gone.yaml does not exist" in caught.value.details
    assert "tty must be" in caught.value.details


def test_what_a_wrong_env_file_may_set_is_not_missing() -> None:
    text = "services: {a: {image: '${I}', command: '${C:?say}', user: '${U-u}', ttyy: true}}"
    with pytest.raises(InvalidInput, match=r"2 errors in \.env, compose\.yaml") as caught:
        project(text, files={".env": "A B=1\n"})
    assert ".env:1:1: a blank in a variable's name" in caught.value.details
    assert 'unknown key "ttyy"' in caught.value.details


def test_an_entry_is_shown_where_it_stands_though_others_are_gone() -> None:
    volumes = "\n".join(f"      - {v}" for v in (":/a", "/b:/b:ro:z", "{type: bind, source: ./e}"))
    with pytest.raises(InvalidInput, match="3 errors") as caught:
        project(f"{A}    volumes:\n{volumes}\n")
    assert "compose.yaml:7:9: services.a.volumes[2] needs the key target" in caught.value.details


def test_one_cycle_is_told_once_and_a_bad_base_spoils_nothing_else() -> None:
    text = """
    services:
      a: {extends: b}
      b: {extends: c}
      c: {extends: a}
      d: {extends: {file: base.yaml, service: d}, networks: [n]}
      e: {extends: d, depends_on: [a, f]}
      f: {extends: {service: g}}
    """
    base = {"base.yaml": "services:\n  d:\n    imgae: x\n"}
    with pytest.raises(InvalidInput, match="4 errors") as caught:
        project(text, files=base)
    told = [line for line in caught.value.details.split("\n") if ": " in line and line[0] != " "]
    assert [line.split(" ", 1)[1].split(" ")[0] for line in told] == [
        "a", "undefined", "cannot", "unknown"
    ]  # fmt: skip


def test_merged_values_of_different_shape_are_all_told() -> None:
    files = {
        "a.yaml": "services: {a: {image: x, x-a: {}, x-b: []}}",
        "b.yaml": "services: {a: {x-a: [], x-b: {}}}",
    }
    with pytest.raises(InvalidInput, match=r"2 errors in b\.yaml"):
        loaded(files=files, use=("a.yaml", "b.yaml"))
    with pytest.raises(InvalidInput, match="1 error"):
        project("include: [a.yaml]\nservices: {a: {x-a: []}}\n", files=files)


def test_what_is_not_yaml_does_not_hide_the_rest() -> None:
    text = """\
services:
  web: &web
    image: x
   ports:
     - '80:80'
  db:
    imag: y
  c:
    image: x
\ttty: true
  d:
    image: x
    ports: [a
  e:
    <<: *web
    networks: [nobody-knows]
  f:
    image: ${X
volumes:
  v: {driv: 1}
  w: @x
"""
    with pytest.raises(InvalidInput) as caught:
        project(text)
    told = [line for line in caught.value.details.split("\n") if line.startswith("compose.yaml")]
    expected = [
        "4:4: not YAML: this line is indented by 3",
        "7:5: unknown key",
        "10:1: not YAML: a tab",
        "13:12: not YAML: this [",
        "18:12: invalid interpolation",
        "20:7: unknown key",
        "21:6: not YAML: a text",
    ]
    assert len(told) == len(expected), told
    for line, words in zip(told, expected, strict=True):
        assert line.startswith(f"compose.yaml:{words}")


@pytest.mark.parametrize(
    "text",
    [
        "services:\n  a:\n    image: 'x\n  b:\n    imag: y\n    command: @\n",
        "\tservices:\n",
        "services: [\n",
    ],
)
def test_where_the_rest_cannot_be_told_from_the_mistake_one_is_told(text: str) -> None:
    with pytest.raises(InvalidInput, match="1 error in"):
        project(text)


def test_so_many_places_that_are_not_yaml_are_told() -> None:
    with pytest.raises(InvalidInput, match="10 errors in"):
        project("services:\n" + "".join(f"  s{n}:\n    a: @\n" for n in range(30)))


@pytest.mark.parametrize("services", ["5", "[a]", "", "x"])
def test_a_base_file_whose_services_are_no_mapping(services: str) -> None:
    text = "services: {a: {extends: {file: b.yaml, service: a}}}"
    with pytest.raises(InvalidInput, match="1 error in") as caught:
        project(text, files={"b.yaml": f"services: {services}\n"})
    assert 'there is no service "a" in b.yaml' in caught.value.details
