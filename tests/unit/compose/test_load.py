"""Finding files, names, variables, errors, lint: what golden files do not show."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gemel.compose.files import DiskReader
from gemel.compose.lint import lint, refuse
from gemel.compose.loader import load
from gemel.compose.schema import BUILD, COMPOSE, SERVICE
from gemel.compose.support import BUILDS, TOP, Level, document
from gemel.compose.support import SERVICE as TABLE
from gemel.errors import InvalidInput, NotFound
from gemel.model.instance import RuntimeName

from .support import ROOT, Files, loaded, project

ONE = "services: {a: {image: x}}"


def test_files_are_found_in_parents(tmp_path: Path) -> None:
    (tmp_path / "App One" / "deep" / "er").mkdir(parents=True)
    (tmp_path / "App One" / "docker-compose.yml").write_text(ONE)
    (tmp_path / "App One" / "docker-compose.override.yml").write_text(
        "services: {b: {image: y, volumes: [./d:/d]}}"
    )
    (tmp_path / "App One" / ".env").write_text("X=1")
    found = load(cwd=str(tmp_path / "App One" / "deep" / "er"), env={}).project
    assert (found.name, list(found.services)) == ("appone", ["a", "b"])
    assert found.services["b"].volumes[0]["source"] == str(tmp_path / "App One" / "d")
    assert found.environment["X"] == "1"


def test_preferred_name_wins_with_a_warning() -> None:
    files = {"compose.yaml": ONE, "docker-compose.yml": "services: {z: {image: z}}"}
    found = loaded(files=files)
    assert list(found.project.services) == ["a"]
    assert any("Using /project/compose.yaml" in w for w in found.warnings)


def test_no_file() -> None:
    with pytest.raises(NotFound, match="no configuration file provided"):
        loaded(files={"other.txt": ""})
    with pytest.raises(NotFound, match=r"missing.yaml does not exist"):
        loaded(ONE, use=("missing.yaml",))


def test_compose_file_variable_and_standard_input() -> None:
    files = {"a.yml": ONE, "b.yml": "services: {b: {image: y}}"}
    found = loaded(files=files, env={"COMPOSE_FILE": "a.yml:b.yml"}).project
    assert list(found.services) == ["a", "b"]
    stdin = load(("-",), cwd="/", env={}, name="p", reader=DiskReader(stdin=ONE)).project
    assert list(stdin.services) == ["a"]


@pytest.mark.parametrize(
    ("text", "options", "env", "name"),
    [
        (ONE, {}, {}, "project"),
        (f"name: My_App!\n{ONE}", {}, {}, "my_app"),
        (f"name: ${{N}}\n{ONE}", {}, {"N": "fromvar"}, "fromvar"),
        (f"name: x\n{ONE}", {}, {"COMPOSE_PROJECT_NAME": "env"}, "env"),
        (f"name: x\n{ONE}", {"name": "flag"}, {"COMPOSE_PROJECT_NAME": "env"}, "flag"),
    ],
)
def test_names(text: str, options: dict[str, str], env: dict[str, str], name: str) -> None:
    assert project(text, env=env, **options).name == name


def test_a_bad_name() -> None:
    with pytest.raises(InvalidInput, match="invalid project name"):
        project(ONE, name="Not Good")


def test_env_files_of_the_command_line() -> None:
    files = {"one.env": "A=1\nB=1", "two.env": "B=2", ".env": "C=3"}
    text = 'services: {a: {image: "x:${A}-${B}-${C:-none}"}}'
    found = loaded(text, files=files, env_files=["one.env", "two.env"])
    assert found.project.services["a"].image == "x:1-2-none"
    with pytest.raises(InvalidInput, match=r"nope\.env"):
        loaded(text, files=files, env_files=["nope.env"])


def test_bad_env_file_is_told_with_its_line() -> None:
    with pytest.raises(InvalidInput) as error:
        loaded(ONE, files={".env": "GOOD=1\nBAD KEY=2\nX='open\n"})
    assert ".env:2:1: a blank in a variable's name" in error.value.details
    assert ".env:3:3: this quote is not closed" in error.value.details


def test_errors_of_an_extended_file_are_told_there() -> None:
    files = {"base.yaml": "services:\n  b:\n    image: 5\n  unrelated: {nonsense: 1}\n"}
    with pytest.raises(InvalidInput) as error:
        loaded("services: {a: {extends: {file: base.yaml, service: b}}}", files=files)
    assert error.value.details.startswith("base.yaml:3:12: image must be a text")
    assert "nonsense" not in error.value.details


def test_places_point_at_the_line() -> None:
    text = "services:\n  a:\n    image: x\n    networks: [fornt]\nnetworks: {front: }\n"
    with pytest.raises(InvalidInput) as error:
        loaded(text)
    lines = error.value.details.splitlines()
    assert lines[0] == 'compose.yaml:4:16: undefined network "fornt" (did you mean "front"?)'
    assert lines[1].index("fornt") == lines[2].index("^")


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [*a]",
        "[" * 5000,
        "{" * 5000,
        "a: " * 3000,
        "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)).replace(
            "*a0", "x"
        ),
        "\x00",
        "services: {a: {image: x, command: 'a \"b'}}",
        "services: {a: {image: x, mem_limit: 1e400}}",
        "services: {a: {image: x, ports: ['99999:1']}}",
        "? {a: b}\n: c",
        "services:\n",
        "services: {a: {extends: a}}",
        "include: [missing.yaml]",
    ],
)
def test_hostile_files_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        loaded(text)


def test_selecting() -> None:
    text = """
    services:
      a: {image: a, depends_on: [b]}
      b: {image: b}
      c: {image: c, profiles: [p], depends_on: [d]}
      d: {image: d, profiles: [q]}
    """
    of = project(text)
    assert of.with_dependencies(["a"]) == ["b", "a"]
    assert set(of.disabled) == {"c", "d"}
    assert set(of.enabling(["c"]).services) == {"a", "b", "c", "d"}
    assert of.dependents(["b"]) == ["a"]
    with pytest.raises(NotFound, match=r"no such service: aa \(did you mean \"a\"\?\)"):
        of.service("aa")


def test_runtimes() -> None:
    text = "services: {a: {image: x}, b: {image: x, runtime: kata}, c: {image: x, runtime: runc}}"
    of = project(text)
    assert [s.runtime for s in of] == [
        RuntimeName.CONTAINER,
        RuntimeName.MICROVM,
        RuntimeName.CONTAINER,
    ]
    changed = of.with_runtimes({"a": "microvm"})
    assert changed.service("a").runtime is RuntimeName.MICROVM
    with pytest.raises(InvalidInput, match="unknown runtime"):
        of.with_runtimes({"a": "autos"})


def test_scaling() -> None:
    of = project("services: {a: {image: x}, n: {image: x, container_name: one}}")
    assert of.with_scale({"a": 3}).service("a").scale == 3
    with pytest.raises(InvalidInput, match="container_name"):
        of.with_scale({"n": 2})


# lint

LINTED = """
services:
  vm:
    image: x
    runtime: microvm
    devices: ["/dev/a"]
    network_mode: host
    mem_reservation: 1g
    cap_add: [SYS_TIME]
  box:
    image: x
    devices: ["/dev/a"]
    logging: {driver: syslog}
    blkio_config: {weight: 10}
    ports: ["80:80"]
  other: {image: x, ports: ["80:8080"]}
secrets: {s: {external: true}}
"""


def test_findings_by_runtime() -> None:
    found = loaded(LINTED)
    told = {(f.attribute, f.level): f for f in lint(found.project, found.origins)}
    assert set(told) == {
        ("services.vm.devices", Level.REFUSED),
        ("services.vm.network_mode", Level.REFUSED),
        ("services.vm.mem_reservation", Level.IGNORED),
        ("services.box.logging", Level.REFUSED),
        ("services.box.blkio_config", Level.IGNORED),
        ("services.other.ports[0]", Level.REFUSED),
        ("secrets.s.external", Level.REFUSED),
    }
    finding = told["services.vm.devices", Level.REFUSED]
    assert finding.render().startswith(
        "compose.yaml:6:5: services.vm.devices is refused in a micro"
    )
    with pytest.raises(InvalidInput, match="5 attributes"):
        refuse(list(told.values()))


def test_values_that_the_engine_would_refuse_half_way() -> None:
    found = loaded("""
    services:
      a: {image: x, restart: allways, networks: {n: {ipv4_address: 10.1.1.300}}}
      b: {image: x, restart: "on-failure:3", networks: {n: {ipv6_address: "fd00::1"}}}
    networks: {n: {ipam: {config: [{subnet: 10.1.0.0/33}, {subnet: 10.2.0.1/16}]}}}
    """)
    told = [f for f in lint(found.project, found.origins) if f.level is Level.REFUSED]
    assert [(f.attribute, f.place.line) for f in told] == [
        ("services.a.restart", 3),
        ("services.a.networks.n.ipv4_address", 3),
        ("networks.n.ipam.config[0].subnet", 5),
    ]
    assert 'no policy "allways" (did you mean "always"?)' in told[0].words


def test_every_attribute_is_in_the_table() -> None:
    def covered(fields: set[str], table: dict[str, object]) -> set[str]:
        return fields - {key.split(".")[0] for key in table}

    assert not covered(set(SERVICE.fields or {}), dict(TABLE))
    assert not covered(set(BUILD.fields or {}), dict(BUILDS))
    assert not covered(set(COMPOSE.fields or {}), dict(TOP))
    for kind in ("networks", "volumes", "configs", "secrets"):
        rule = (COMPOSE.fields or {})[kind].other
        assert rule is not None
        known = {key.split(".")[2] for key in TOP if key.startswith(f"{kind}.*.")}
        assert set(rule.fields or {}) == known


def test_the_document_is_up_to_date() -> None:
    """Mend: python -m gemel.compose.support > docs/compose-support.md"""
    path = Path(__file__).parents[3] / "docs" / "compose-support.md"
    assert path.read_text() == document()


def test_reader_is_the_only_way_to_files() -> None:
    """The package opens nothing itself: with a reader of nothing, nothing is found."""
    with pytest.raises(NotFound):
        load(cwd=ROOT, env={}, reader=Files({}))
    source = Path(__file__).parents[3] / "src" / "gemel" / "compose"
    for module in source.glob("*.py"):
        if module.name != "files.py":
            assert not re.search(
                r"\bopen\(|read_text|\bos\.stat|os\.path\.exists", module.read_text()
            )


@pytest.mark.parametrize("wrong", ["0.5", "0", "70000", "9-8", "80/quic", "http"])
def test_expose_that_is_no_port(wrong: str) -> None:
    """Found by generated files: it came through as far as the request."""
    with pytest.raises(InvalidInput, match="expose takes a port"):
        project(f"services: {{a: {{image: x, expose: ['{wrong}']}}}}")
    project("services: {a: {image: x, expose: [80, '90-92', '53/udp']}}")
