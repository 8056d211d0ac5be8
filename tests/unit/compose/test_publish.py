"""What is published of a project, what is refused, and what is asked about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from gemel.compose import publish
from gemel.compose.artifact import digest_of, pack, unpack
from gemel.compose.files import no_remote
from gemel.compose.loader import load
from gemel.compose.project import Project
from gemel.compose.render import canonical
from gemel.errors import InvalidInput, Unsupported
from tests.unit.compose.support import ROOT, Files

CACHE = "/cache/0123"


class World:
    """A project from texts, and the same project from the artifact that it becomes."""

    def __init__(
        self, files: Mapping[str, str], env: Mapping[str, str] | None = None, **options: Any
    ) -> None:
        self.files = dict(files)
        self.reader = Files(files)
        self.env = env or {}
        use = options.pop("use", ("compose.yaml",))
        self.project: Project = load(
            use, cwd=ROOT, env=self.env, reader=self.reader, **options
        ).project

    def contents(self, with_env: bool = True, digests: str = "") -> publish.Contents:
        return publish.collect(self.project, self.reader, with_env=with_env, digests=digests)

    def published(self, **options: Any) -> dict[str, bytes]:
        layers = self.contents(**options).layers
        packed = pack(layers, version="1.1", created="", by="")
        return unpack(packed.manifest, {digest_of(blob): blob for blob in packed.blobs})

    def fetched(self, **options: Any) -> Project:
        found = {f"{CACHE}/{n}": d.decode() for n, d in self.published(**options).items()}
        asked = []

        def remote(reference: str, /) -> str:
            asked.append(reference)
            return f"{CACHE}/compose.yaml"

        project = load(
            ("oci://r/app",), cwd=ROOT, env=self.env, reader=Files(found), remote=remote
        ).project
        assert asked == ["oci://r/app"]
        return project


FILES = {
    "compose.yaml": """
        x-env: &env {env_file: "./web.env"}   # é: positions count characters
        services:
          web:
            <<: *env
            image: x
            command: ["$WHAT"]
          ext:
            extends: {service: base, file: 'common/base.yaml'}
            env_file:
              - path: "${NAME}.env"
                format: raw
              - &anchor ./web.env
          last: {image: y, env_file: *anchor}
        """,
    "override.yml": """
        services:
          web: {environment: {B: "2"}, env_file: [./more.env]}
        """,
    "common/base.yaml": """
        services:
          base:
            image: z
            env_file: own.env   # lies in common
            extends: {file: deeper/top.yaml, service: top}
          other: {image: not-ours}
        """,
    "common/deeper/top.yaml": "services: {top: {stop_signal: INT, env_file: ../own.env}}\n",
    "web.env": "A=1\n",
    "more.env": "C=3\n",
    "named.env": "D='4'\n",
    "common/own.env": "E=5\n",
}
ENV = {"NAME": "named", "WHAT": "sleep"}


def test_a_project_is_the_same_after_it_has_gone_through_a_registry() -> None:
    world = World(FILES, ENV, use=("compose.yaml", "override.yml"))
    before, after = (
        canonical(project, (), as_json=True) for project in (world.project, world.fetched())
    )
    assert before.pop("x-env") != after.pop("x-env")  # an extension is kept as it is written
    assert before == after
    assert before["services"]["ext"]["environment"] == {"A": "1", "D": "'4'", "E": "5"}
    assert before["services"]["ext"]["stop_signal"] == "INT"
    layers = world.contents().layers
    assert [layer.name for layer in layers][:2] == ["compose.yaml", "override.yml"]
    assert sum(layer.extends for layer in layers) == 2
    assert sum(layer.kind.endswith("envfile") for layer in layers) == 4
    text = layers[0].data.decode()
    assert "# é: positions count characters" in text and "&anchor" in text
    assert "${NAME}" not in text and "$WHAT" in text


def test_env_files_are_left_out_unless_asked_for() -> None:
    contents = World(FILES, ENV).contents(with_env=False)
    assert not any(layer.kind.endswith("envfile") for layer in contents.layers)
    assert {f"{ROOT}/web.env", f"{ROOT}/common/own.env"} <= set(contents.left_out)


def test_names_in_the_artifact_say_nothing_of_this_machine() -> None:
    here = World(FILES, ENV).contents()
    files = {f"/elsewhere/{name}": text for name, text in FILES.items()}
    project = load(("compose.yaml",), cwd="/elsewhere", env=ENV, reader=Files(files)).project
    there = publish.collect(project, Files(files), with_env=True)
    assert there.layers == here.layers


def test_pinned_images_come_last() -> None:
    world = World({"compose.yaml": "services: {a: {image: x:1}}\n"})
    pins = publish.pinned({"a": "x:1@sha256:12"})
    assert world.fetched(digests=pins).service("a").image == "x:1@sha256:12"


def test_what_an_application_needs_beside_its_files_is_told() -> None:
    world = World(
        {
            "compose.yaml": """
                services: {a: {image: x, configs: [c], secrets: [s]}}
                configs: {c: {file: ./c.txt}, inline: {content: text}}
                secrets: {s: {file: ./s.txt}, t: {environment: T}}
                """
        },
        {"T": "x"},
    )
    assert world.contents().left_out == (f"{ROOT}/c.txt", f"{ROOT}/s.txt")


def test_a_file_of_another_registry_stays_named_as_it_is() -> None:
    inner = "services: {top: {image: inner}}\n"
    files = Files(
        {
            "compose.yaml": "services: {a: {extends: {file: 'oci://r/b', service: top}}}\n",
            f"{CACHE}/compose.yaml": inner,
        }
    )
    project = load(
        (), cwd=ROOT, env={}, reader=files, remote=lambda _: f"{CACHE}/compose.yaml"
    ).project
    assert project.service("a").image == "inner"
    [layer] = publish.collect(project, files, with_env=True).layers
    assert b"oci://r/b" in layer.data


def test_local_includes_are_refused_and_those_of_a_registry_are_not() -> None:
    files = {
        "compose.yaml": "include: [./other.yaml]\nservices: {a: {image: x}}\n",
        "other.yaml": "services: {b: {image: y}}\n",
    }
    world = World(files)
    with pytest.raises(InvalidInput, match="cannot publish compose file with local includes"):
        publish.refuse(world.project, world.reader)
    reader = Files(
        {
            "compose.yaml": "include: [{path: 'oci://r/other'}]\nservices: {a: {image: x}}\n",
            f"{CACHE}/compose.yaml": files["other.yaml"],
        }
    )
    project = load(
        (), cwd=ROOT, env={}, reader=reader, remote=lambda _: f"{CACHE}/compose.yaml"
    ).project
    assert set(project.services) == {"a", "b"}
    publish.refuse(project, reader)


def test_services_that_are_only_built_are_refused() -> None:
    world = World(
        {"compose.yaml": "services: {a: {build: .}, b: {build: ., image: r/b, profiles: [p]}}\n"}
    )
    with pytest.raises(InvalidInput, match=r"only contains a build section.*'a'"):
        publish.refuse(world.project, world.reader)


def test_what_is_asked_about() -> None:
    world = World(
        {
            "compose.yaml": """
                services:
                  a: {image: x, volumes: ["./d:/d", "v:/v"], environment: [A=1, B]}
                  off: {image: y, profiles: [p], volumes: ["/host:/h"], env_file: web.env}
                volumes: {v: }
                configs: {c: {environment: FROM}}
                """,
            "web.env": "C=3\n",
        },
        {"FROM": "x"},
    )
    assert publish.bind_mounts(world.project) == [f"a: {ROOT}/d:/d", "off: /host:/h"]
    assert publish.environment(world.project)["a"] == {"A": "1", "B": ""}
    assert publish.environment(world.project)["c"] == {"c": "FROM"}
    assert publish.with_env_files(world.project, world.reader) == ["off"]
    names = [name for name, _ in publish.scanned(world.project, world.reader)]
    assert names == [f"{ROOT}/compose.yaml", f"{ROOT}/web.env"]


def test_an_anchor_that_is_defined_twice_is_refused_with_words() -> None:
    world = World(
        {
            "compose.yaml": """
                x-a: &a 1
                x-b: &a 2
                services: {a: {image: x, env_file: web.env}}
                """,
            "web.env": "A=1\n",
        }
    )
    with pytest.raises(Unsupported, match="an anchor is defined twice"):
        world.contents()


def test_where_files_of_a_registry_stand() -> None:
    """As in Compose: paths from the first artifact's folder, the name from here."""
    files = Files(
        {
            "local.yaml": "services: {a: {volumes: ['./l:/l']}}\n",
            ".env": "TAG=5\n",
            f"{CACHE}/compose.yaml": "services: {a: {image: 'x:$TAG', volumes: ['./r:/r']}}\n",
        }
    )

    def loaded(*use: str, **options: Any) -> Project:
        return load(
            use, cwd=ROOT, env={}, reader=files, remote=lambda _: f"{CACHE}/compose.yaml", **options
        ).project

    for use in (("oci://r/a", "local.yaml"), ("local.yaml", "oci://r/a")):
        project = loaded(*use)
        assert (project.name, project.working_dir) == ("project", CACHE)
        assert project.service("a").image == "x:5"
        sources = {mount["source"] for mount in project.service("a").config["volumes"]}
        assert sources == {f"{CACHE}/l", f"{CACHE}/r"}
    assert loaded("oci://r/a", project_dir="/else").name == "else"
    wrong = Files({f"{CACHE}/compose.yaml": "services: {a: {imgae: x, env_file: none.env}}\n"})
    with pytest.raises(InvalidInput, match=r"oci://r/a/compose\.yaml:1:16: .*imgae"):
        load(
            ("oci://r/a",), cwd=ROOT, env={}, reader=wrong, remote=lambda _: f"{CACHE}/compose.yaml"
        )
    with pytest.raises(Unsupported, match="not read from an address here: oci://r/a"):
        load(("oci://r/a",), cwd=ROOT, env={}, reader=files, remote=no_remote)
