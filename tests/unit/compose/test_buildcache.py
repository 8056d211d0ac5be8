"""Which entries of cache_from and cache_to are carried out."""

from __future__ import annotations

import json
import platform

from gemel.client.project.images import build_query
from gemel.compose import lint
from gemel.compose.builds import build_request
from gemel.model.buildcache import choose
from tests.unit.compose.support import loaded, project


def test_a_registrys_repository_is_read_from_and_written_to() -> None:
    made = choose(
        ["type=registry,ref=r.example:5000/shop/cache:main"],
        ["type=registry,ref=r.example:5000/shop/cache:main,mode=max"],
    )
    assert made.source == made.target == "r.example:5000/shop/cache"
    assert not made.unused_from and not made.unused_to


def test_a_bare_name_is_a_cache_where_one_is_written() -> None:
    assert choose(["shop/cache:main"], ["shop/cache"]).source == "shop/cache"
    made = choose(["shop/app:latest"], [])
    assert made.source == "" and "an image is no cache" in made.unused_from[0]


def test_all_else_is_told_with_its_reason() -> None:
    made = choose(
        ["type=local,src=/tmp/x", "type=registry,ref=a/b", "type=registry,ref=c/d", "type=gha"],
        ["type=inline", "a/b", "c/d", "type=registry"],
    )
    assert (made.source, made.target) == ("a/b", "a/b")
    assert [text.partition(":")[0] for text in made.unused_from] == [
        "type=local,src=/tmp/x", "type=registry,ref=c/d", "type=gha",
    ]  # fmt: skip
    assert "one repository, here from a/b" in made.unused_from[1]
    assert [text.partition(":")[0] for text in made.unused_to] == [
        "type=inline",
        "c/d",
        "type=registry",
    ]


def test_what_has_no_effect_is_told_with_its_line() -> None:
    of = loaded(
        """\
        services:
          a:
            build:
              context: .
              cache_from: [type=gha, "type=registry,ref=r.example/c"]
              cache_to: ["type=registry,ref=r.example/c"]
        """
    )
    [finding] = lint.lint(of.project, of.origins)
    assert finding.render().startswith(
        "compose.yaml:5:7: services.a.build.cache_from is ignored: type=gha: "
    )
    made = build_request(of.project, of.project.service("a"))
    assert json.loads(build_query(made, "Dockerfile")["cacheto"]) == list(made.cache_to)


def test_of_several_platforms_the_machines_own_is_built() -> None:
    own = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    text = f"services: {{a: {{build: {{context: ., platforms: [linux/s390x, linux/{own}]}}}}}}"
    of = project(text)
    assert build_request(of, of.service("a")).platforms[0] == f"linux/{own}"
    of = project(text.replace("{a: {build", "{a: {platform: linux/s390x, build"))
    assert build_request(of, of.service("a")).platforms[0] == "linux/s390x"
