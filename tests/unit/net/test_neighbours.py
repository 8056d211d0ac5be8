from __future__ import annotations

from gemel.net.neighbours import missing, own

DOCKER = """-P INPUT ACCEPT
-P FORWARD DROP
-P OUTPUT ACCEPT
-N DOCKER-USER
-A FORWARD -j DOCKER-USER
"""
IN = '-A FORWARD -i gm-+ -m comment --comment "gemel-1" -j ACCEPT\n'
OUT = "-A FORWARD -o gm-+ -m comment --comment gemel-1 -j ACCEPT\n"


def test_nothing_is_added_where_nothing_drops() -> None:
    assert missing("", "gemel-1") == []
    assert missing("-P INPUT ACCEPT\n-P FORWARD ACCEPT\n", "gemel-1") == []


def test_what_is_there_is_not_added_again() -> None:
    assert len(missing(DOCKER, "gemel-1")) == 2
    assert [" ".join(rule) for rule in missing(DOCKER + IN, "gemel-1")] == [OUT[3:].strip()]
    assert missing(DOCKER + IN + OUT, "gemel-1") == []
    assert len(missing(DOCKER + IN + OUT, "gemel-2")) == 2


def test_input_is_opened_for_names_only() -> None:
    rules = missing("-P INPUT DROP\n", "gemel-1")
    assert all(rule[0] == "INPUT" and "53" in rule for rule in rules)
    assert len(rules) == 2


def test_only_own_rules_are_withdrawn() -> None:
    assert own(DOCKER + IN + OUT, "gemel-2") == []
    assert [rule[:3] for rule in own(DOCKER + IN + OUT, "gemel-1")] == [
        ["FORWARD", "-i", "gm-+"],
        ["FORWARD", "-o", "gm-+"],
    ]
