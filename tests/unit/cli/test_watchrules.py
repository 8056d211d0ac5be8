"""``develop.watch``: which change leads to what."""

from __future__ import annotations

from typing import Any

from gemel.client.project import watchrules
from gemel.client.project.watchrules import Rule, Work
from gemel.compose.project import Project, Service


def _rules(*entries: dict[str, Any], ignored: tuple[str, ...] = ()) -> list[Rule]:
    config = {"build": {"context": "/app"}, "develop": {"watch": list(entries)}}
    project = Project(name="p", working_dir="/", services={"web": Service("web", config)})
    return watchrules.rules(project, ["web"], lambda path: "." not in path, lambda _: list(ignored))


def test_sync_of_a_folder() -> None:
    made = _rules(
        {
            "path": "/app/src",
            "target": "/code",
            "action": "sync",
            "ignore": ["node_modules/", "*.log"],
        }
    )
    changed = [
        "/app/src/a.py",
        "/app/src/x/b.py",
        "/app/src/x.log",
        "/app/src/node_modules/c.js",
        "/app/src/.git/HEAD",
        "/app/src/a.py~",
        "/app/source/no.py",
    ]
    assert watchrules.decide(made, changed) == {
        "web": Work(files={"/app/src/a.py": "/code/a.py", "/app/src/x/b.py": "/code/x/b.py"})
    }
    assert made[0].prunes("/app/src/node_modules")
    assert not made[0].prunes("/app/src/x")
    assert not made[0].prunes("/app")
    assert made[0].prunes("/elsewhere")


def test_include_and_the_context_s_dockerignore() -> None:
    made = _rules(
        {"path": "/app", "target": "/t", "action": "sync", "include": ["**/*.py"]},
        ignored=("build",),
    )
    hit = watchrules.decide(made, ["/app/a.py", "/app/x/b.py", "/app/c.txt", "/app/build/d.py"])
    assert list(hit["web"].files) == ["/app/a.py", "/app/x/b.py"]


def test_other_actions() -> None:
    hook = {"command": ["x"]}
    made = _rules(
        {"path": "/app/go.mod", "action": "rebuild"},
        {"path": "/app/etc", "target": "/etc/app", "action": "sync+restart"},
        {"path": "/app/web", "target": "/web", "action": "sync+exec", "exec": hook},
        {"path": "/app/again", "action": "restart"},
    )
    assert watchrules.decide(made, ["/app/go.mod"]) == {"web": Work(rebuild=True)}
    assert watchrules.decide(made, ["/app/go.sum"]) == {}
    one = watchrules.decide(made, ["/app/etc/a", "/app/web/b", "/app/web/c"])["web"]
    assert (one.restart, one.rebuild, one.execs) == (True, False, [hook])
    assert one.files == {"/app/etc/a": "/etc/app/a", "/app/web/b": "/web/b", "/app/web/c": "/web/c"}
    assert watchrules.decide(made, ["/app/again/x"])["web"] == Work(restart=True)


def test_initial_sync() -> None:
    made = _rules(
        {"path": "/app/a", "target": "/a", "action": "sync", "initial_sync": True},
        {"path": "/app/b", "target": "/b", "action": "sync"},
    )
    work = watchrules.first(made, lambda rule: [f"{rule.path}/x", f"{rule.path}/x~"])
    assert work == {"web": Work(files={"/app/a/x": "/a/x"})}
