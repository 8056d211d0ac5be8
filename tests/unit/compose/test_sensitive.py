"""Texts that look like secrets."""

from __future__ import annotations

import pytest

from gemel.compose.sensitive import kind_of, scan

JWT = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.SflKxwRJSMeKKF2QT4"


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("AWS_ACCESS_KEY_ID", "A3TX1234567890ABCDEF", "AWS Client ID"),
        ("AWS_SECRET_ACCESS_KEY", "12345+67890/abcdefghijklm+NOPQRS", "AWS Secret Key"),
        ("x", "ghp_1234567890abcdefghijklmnopqrstuvwxyz", "Github authentication"),
        ("x", JWT, "JSON Web Token"),
        ("x", "-----BEGIN DSA PRIVATE KEY-----\nabc", "Private Key"),
        ("URL", "postgres://app:hunter22@db/app", "Password in an address"),
        ("POSTGRES_PASSWORD", "hunter22", "Secret by its name"),
        ("api-key", "abcd", "Secret by its name"),
        ("POSTGRES_PASSWORD", "$$literal", "Secret by its name"),
        ("POSTGRES_PASSWORD", "${PW}", ""),
        ("POSTGRES_PASSWORD", "$PW", ""),
        ("POSTGRES_PASSWORD_FILE", "/run/secrets/pw", ""),
        ("TOKEN_URL", "https://id.example.com/token", ""),
        ("URL", "postgres://app:${PW}@db/app", ""),
        ("ALLOW_EMPTY_PASSWORD", "yes", ""),
        ("COMPASS", "north", ""),
        ("image", "registry.example.com:5000/a/b@sha256:" + "0" * 64, ""),
    ],
)
def test_kinds(name: str, value: str, kind: str) -> None:
    assert kind_of(name, value) == kind


def test_a_compose_file_is_looked_through_by_its_keys() -> None:
    text = f"""
services:
  a:
    environment: [DB_PASSWORD=hunter22, "OK=1"]
    command: ["--token", "{JWT}"]
  b:
    environment: {{SECRET: "${{S}}", PIN_TOKEN: 123456}}
"""
    found = {(one.key, one.kind) for one in scan("compose.yaml", text)}
    assert found == {
        ("services.a.environment.DB_PASSWORD", "Secret by its name"),
        ("services.a.command[1]", "JSON Web Token"),
        ("services.b.environment.PIN_TOKEN", "Secret by its name"),
    }


def test_other_files_are_looked_through_by_their_lines() -> None:
    text = "# PASSWORD=x\nexport API_KEY='abcd'\nA=1\nplain text\n-----BEGIN PRIVATE KEY-----\n"
    found = scan("web.env", text)
    assert [(one.kind, one.key) for one in found] == [
        ("Secret by its name", "API_KEY"),
        ("Private Key", ""),
    ]
    assert "abcd" not in found[0].value


def test_whatever_a_file_holds_is_no_error() -> None:
    assert scan("a.yaml", "a: [\n") == []
    assert scan("a.env", "\0\n=\n" + "x" * 10_000) == []
