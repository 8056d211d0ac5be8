"""References: Docker's own examples, and laws for all of them."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gemel.errors import InvalidInput
from gemel.image.reference import Reference, parse, parse_tagged

SHA = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "full", "short"),
    [
        ("nginx", "docker.io/library/nginx:latest", "nginx:latest"),
        ("nginx:1.27", "docker.io/library/nginx:1.27", "nginx:1.27"),
        ("library/nginx", "docker.io/library/nginx:latest", "nginx:latest"),
        ("index.docker.io/nginx", "docker.io/library/nginx:latest", "nginx:latest"),
        ("team/app", "docker.io/team/app:latest", "team/app:latest"),
        ("docker.io/library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("localhost:5000/app:v1", "localhost:5000/app:v1", "localhost:5000/app:v1"),
        ("ghcr.io/a/b_c.d--e:X_1", "ghcr.io/a/b_c.d--e:X_1", "ghcr.io/a/b_c.d--e:X_1"),
        ("Host/app", "Host/app:latest", "Host/app:latest"),
        ("[::1]:5000/app", "[::1]:5000/app:latest", "[::1]:5000/app:latest"),
        (f"nginx@{SHA}", f"docker.io/library/nginx@{SHA}", f"nginx@{SHA}"),
        (f"nginx:1@{SHA}", f"docker.io/library/nginx:1@{SHA}", f"nginx:1@{SHA}"),
    ],
)
def test_names_are_completed_and_shown_as_docker_does(text: str, full: str, short: str) -> None:
    name = parse_tagged(text)
    assert str(name) == full
    assert name.familiar == short


@pytest.mark.parametrize(
    "text",
    ["", " nginx", "nginx ", "UPPER", "docker.io/Team/app", "a//b", "a/", "/a", "-a", "a:", "a:-b",
     "a:" + "x" * 129, "a@sha256:12", "a@md5:" + "a" * 32, "a b", "a\n", "a:b:c", "ä", "a" * 64,
     "x/" + "a" * 256, "a..b", "a___b", "exa mple.com/a", "https://example.com/a", "a/b/../c"],
)  # fmt: skip
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse(text)
    assert "invalid reference" in caught.value.brief or "repository name" in caught.value.brief


@pytest.mark.parametrize(
    ("text", "local"),
    [("127.0.0.1:5000/a", True), ("localhost/a", True), ("[::1]:5000/a", True), ("nginx", False),
     ("localhost.example.com/a", False), ("10.0.0.1:5000/a", False)],
)  # fmt: skip
def test_loopback_registries(text: str, local: bool) -> None:
    assert parse(text).is_loopback is local


words = st.text("abz09", min_size=1, max_size=5)
component = st.lists(words, min_size=1, max_size=3).flatmap(
    lambda parts: st.sampled_from([".", "_", "__", "-", "---"]).map(lambda mark: mark.join(parts))
)
domains = st.sampled_from(["docker.io", "localhost", "ghcr.io", "127.0.0.1:5000", "Reg:1"])
tags = st.one_of(
    st.just(""),
    st.builds(str.__add__, st.sampled_from("aZ0_"), st.text("aZ0_.-", max_size=20)),
)


@given(domains, st.lists(component, min_size=1, max_size=3), tags, st.sampled_from(["", SHA]))
def test_both_forms_lead_back_to_the_same(
    domain: str, parts: list[str], tag: str, digest: str
) -> None:
    # Docker has this flaw too: docker.io/a.b/c is shown as a.b/c, which is another
    assume(domain != "docker.io" or len(parts) < 2 or "." not in parts[0])
    if domain == "docker.io" and len(parts) == 1:
        parts = ["library", *parts]
    name = Reference(domain, "/".join(parts), tag, digest)
    assert parse(str(name)) == name
    assert parse(name.familiar) == name


@given(st.text(max_size=60))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        name = parse(text)
    except InvalidInput:
        return
    assert parse(str(name)) == name
