"""Plans of up and down against what is observed."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gemel.compose.confighash import config_hash
from gemel.compose.down import DownOptions, plan_down, plan_start, plan_stop
from gemel.compose.observed import Observed, observe
from gemel.compose.plan import UpOptions, plan_images, plan_up
from gemel.compose.project import Project, Service
from gemel.compose.requests import container, network
from gemel.compose.steps import Kind, Plan, Step
from gemel.errors import NotFound

from .support import project

SHOP = """
services:
  db:
    image: postgres
    volumes: [data:/var/lib, /cache]
    healthcheck: {test: [CMD, ok]}
  web:
    image: web
    depends_on:
      db: {condition: service_healthy}
    deploy: {replicas: 2}
  job:
    image: job
    depends_on: [web]
volumes: {data: }
"""


def running(of: Project, **changed: dict[str, Any]) -> Observed:
    """Everything of a project as it should be; ``changed``: fields of a container by its name."""
    containers = []
    for service in of.services.values():
        for index in range(1, service.scale + 1):
            name = of.container_name(service, index)
            labels = {
                "com.docker.compose.project": of.name,
                "com.docker.compose.service": service.name,
                "com.docker.compose.container-number": str(index),
                "com.docker.compose.config-hash": config_hash(service),
                "com.docker.compose.image": f"sha256:{service.image}",
                "com.docker.compose.oneoff": "False",
            }
            body: dict[str, Any] = {
                "Id": name.replace("-", ""),
                "Names": [f"/{name}"],
                "State": "running",
                "Labels": labels,
                "NetworkSettings": {"Networks": {of.network_name("default"): {}}},
                "Mounts": [],
            }
            more = dict(changed.get(name.replace("-", "_"), {}))
            labels.update(more.pop("Labels", {}))
            containers.append({**body, **more})
    labels = {"com.docker.compose.project": of.name}
    return observe(
        containers,
        [{"Name": of.network_name(k), "Labels": labels} for k in of.networks],
        [{"Name": of.volume_name(k), "Labels": labels} for k in of.volumes],
        {s.image: f"sha256:{s.image}" for s in of.services.values()},
    )


def names(plan: Plan, kind: Kind) -> list[str]:
    return [step.name for step in plan.of(kind)]


def before(plan: Plan, step: Step) -> set[str]:
    """All that is done before a step, directly or not, as ``kind name``."""
    found: set[int] = set()
    left = list(step.after)
    while left:
        id = left.pop()
        if id not in found:
            found.add(id)
            left += plan.steps[id].after
    return {f"{plan.steps[i].kind} {plan.steps[i].name}" for i in found}


def test_nothing_there() -> None:
    shop = project(SHOP)
    plan = plan_up(shop, Observed(), UpOptions())
    assert names(plan, Kind.CREATE) == [
        "project-db-1",
        "project-web-1",
        "project-web-2",
        "project-job-1",
    ]
    web = next(s for s in plan.of(Kind.START) if s.name == "project-web-2")
    assert {"wait db", "start project-db-1", "create project-web-2"} <= before(plan, web)
    assert "create project-web-1" not in before(plan, web), "replicas do not wait for each other"
    db = plan.of(Kind.CREATE)[0]
    assert before(plan, db) == {
        "create network project_default",
        "create volume project_data",
    }


def test_steps_are_in_a_right_order() -> None:
    plan = plan_up(project(SHOP), Observed(), UpOptions())
    assert all(earlier < step.id for step in plan.steps for earlier in step.after)


def test_nothing_to_do() -> None:
    shop = project(SHOP)
    plan = plan_up(shop, running(shop), UpOptions())
    assert plan.steps == ()
    assert len(plan.unchanged) == 4


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"Labels": {"com.docker.compose.config-hash": "x"}}, "its configuration changed"),
        ({"Labels": {"com.docker.compose.image": "sha256:old"}}, "its image changed"),
        ({"State": "dead"}, "it is dead"),
        (
            {"NetworkSettings": {"Networks": {"other": {}}}},
            "it is not on the network project_default",
        ),
        (
            {"Mounts": [{"Type": "volume", "Name": "other", "Destination": "/var/lib"}]},
            "its volume is not project_data",
        ),
    ],
)
def test_recreates_only_what_differs(change: dict[str, Any], reason: str) -> None:
    shop = project(SHOP)
    plan = plan_up(shop, running(shop, project_db_1=change), UpOptions())
    (step,) = plan.of(Kind.RECREATE)
    assert (step.name, step.reason) == ("project-db-1", reason)
    assert names(plan, Kind.START) == ["project-db-1"]


def test_no_recreate_and_force() -> None:
    shop = project(SHOP)
    changed = running(shop, project_db_1={"Labels": {"com.docker.compose.config-hash": "x"}})
    assert not plan_up(shop, changed, UpOptions(no_recreate=True)).of(Kind.RECREATE)
    forced = plan_up(shop, running(shop), UpOptions(services=("web",), force_recreate=True))
    assert names(forced, Kind.RECREATE) == ["project-web-1", "project-web-2"]
    both = UpOptions(services=("web",), always_recreate_deps=True)
    assert names(plan_up(shop, running(shop), both), Kind.RECREATE) == ["project-db-1"]


def test_no_deps_leaves_others_alone() -> None:
    plan = plan_up(project(SHOP), Observed(), UpOptions(services=("job",), no_deps=True))
    assert names(plan, Kind.CREATE) == ["project-job-1"]
    assert names(plan, Kind.CREATE_VOLUME) == []


def test_anonymous_volumes_go_with_the_container() -> None:
    shop = project(SHOP)
    volume = "ab" * 32
    mounts = [{"Type": "volume", "Name": volume, "Destination": "/cache"}]
    changed = {"Mounts": mounts, "Labels": {"com.docker.compose.config-hash": "x"}}
    (step,) = plan_up(shop, running(shop, project_db_1=changed), UpOptions()).of(Kind.RECREATE)
    assert [(i.target, i.volume) for i in step.inherit] == [("/cache", volume)]
    renew = UpOptions(renew_anon_volumes=True)
    (step,) = plan_up(shop, running(shop, project_db_1=changed), renew).of(Kind.RECREATE)
    assert step.inherit == ()


def test_scale_down_removes_the_last() -> None:
    shop = project(SHOP)
    observed = running(shop)
    plan = plan_up(shop.with_scale({"web": 1}), observed, UpOptions())
    assert names(plan, Kind.REMOVE) == ["project-web-2"]
    assert not plan.of(Kind.CREATE, Kind.RECREATE)


def test_scale_up_fills_gaps() -> None:
    shop = project(SHOP)
    observed = running(shop)
    without_first = Observed(
        containers=tuple(c for c in observed.containers if c.name != "project-web-1"),
        networks=observed.networks,
        volumes=observed.volumes,
        images=observed.images,
    )
    plan = plan_up(shop, without_first, UpOptions())
    assert names(plan, Kind.CREATE) == ["project-web-1"]


def test_shared_namespace_follows() -> None:
    text = """
    services:
      a: {image: a}
      b: {image: b, network_mode: "service:a"}
      c: {image: c, depends_on: {a: {condition: service_started, restart: true}}}
    """
    shop = project(text)
    changed = running(shop, project_a_1={"Labels": {"com.docker.compose.config-hash": "x"}})
    plan = plan_up(shop, changed, UpOptions())
    assert names(plan, Kind.RECREATE) == ["project-a-1", "project-b-1"]
    assert names(plan, Kind.RESTART) == ["project-c-1"]


def test_orphans() -> None:
    shop = project(SHOP)
    less = project("services: {db: {image: postgres, volumes: ['data:/d']}}\nvolumes: {data: }")
    plan = plan_up(less, running(shop), UpOptions())
    assert "project-web-1" in plan.warnings[0]
    plan = plan_up(less, running(shop), UpOptions(remove_orphans=True))
    assert set(names(plan, Kind.REMOVE)) == {"project-web-1", "project-web-2", "project-job-1"}


def test_changed_network_is_made_anew_with_its_containers() -> None:
    old = project("services: {a: {image: a, volumes: [/c]}, b: {image: b, network_mode: none}}")
    volume = "cd" * 32
    mounts = [{"Type": "volume", "Name": volume, "Destination": "/c"}]
    observed = running(old, project_a_1={"Mounts": mounts}, project_b_1={"NetworkSettings": {}})
    labels = network(old, "default").labels or {}
    observed = msgspec.structs.replace(observed, networks={"project_default": labels})
    assert plan_up(old, observed, UpOptions()).steps == ()
    new = project(
        "services: {a: {image: a, volumes: [/c]}, b: {image: b, network_mode: none}}\n"
        "networks: {default: {internal: true}}"
    )
    plan = plan_up(new, observed, UpOptions())
    assert [(s.kind, s.name) for s in plan.steps] == [
        (Kind.STOP, "project-a-1"),
        (Kind.REMOVE, "project-a-1"),
        (Kind.REMOVE_NETWORK, "project_default"),
        (Kind.CREATE_NETWORK, "project_default"),
        (Kind.CREATE, "project-a-1"),
        (Kind.START, "project-a-1"),
    ]
    assert "create network project_default" in before(plan, plan.steps[4])
    assert plan.steps[4].inherit[0].volume == volume
    assert [c.name for c in plan.unchanged] == ["project-b-1"]


def test_changed_secret() -> None:
    text = """
    services: {a: {image: a, secrets: [s]}}
    secrets: {s: {environment: S}}
    """
    shop = project(text, env={"S": "one"})
    (file,) = container(shop, shop.service("a"), 1, secrets_dir="/x").files
    mounts = [{"Type": "bind", "Source": file.path, "Destination": "/run/secrets/s"}]
    observed = running(shop, project_a_1={"Mounts": mounts})
    assert plan_up(shop, observed, UpOptions()).steps == ()
    (step,) = plan_up(project(text, env={"S": "two"}), observed, UpOptions()).of(Kind.RECREATE)
    assert step.reason == "its secret s changed"


def test_what_compose_made_is_as_it_should_be() -> None:
    """Its hash has the ids of containers where the file names services."""
    shop = project("services: {a: {image: a}, b: {image: b, volumes_from: [a]}}")
    made = Service("b", {**shop.service("b").config, "volumes_from": ["projecta1"]})
    label = {"Labels": {"com.docker.compose.config-hash": config_hash(made)}}
    assert plan_up(shop, running(shop, project_b_1=label), UpOptions()).steps == ()


def test_external_must_be_there() -> None:
    text = "services: {a: {image: a, networks: [n]}}\nnetworks: {n: {external: true}}"
    with pytest.raises(NotFound, match="network n declared as external"):
        plan_up(project(text), Observed(), UpOptions())


def test_images() -> None:
    text = """
    services:
      base: {build: ./base}
      app: {build: {context: ., additional_contexts: {base: "service:base"}}}
      old: {image: old, pull_policy: always}
      there: {image: there}
      never: {image: never, pull_policy: never}
    """
    observed = Observed(images={"old": "1", "there": "2"})
    plan = plan_images(project(text), observed, UpOptions())
    assert [(s.kind, s.name) for s in plan.steps] == [
        (Kind.BUILD, "project-base"),
        (Kind.BUILD, "project-app"),
        (Kind.PULL, "old"),
    ]
    assert plan.steps[1].after == (0,)


def test_down() -> None:
    shop = project(SHOP)
    options = DownOptions(volumes=True, images="all")
    plan = plan_down(shop, running(shop), options)
    stop_db = next(s for s in plan.of(Kind.STOP) if s.name == "project-db-1")
    assert {"remove project-web-1", "remove project-web-2"} <= before(plan, stop_db)
    (network,) = plan.of(Kind.REMOVE_NETWORK)
    assert "remove project-db-1" in before(plan, network)
    assert names(plan, Kind.REMOVE_VOLUME) == ["project_data"]
    assert set(names(plan, Kind.REMOVE_IMAGE)) == {"postgres", "web", "job"}
    kept = plan_down(shop, running(shop), DownOptions())
    assert not kept.of(Kind.REMOVE_VOLUME, Kind.REMOVE_IMAGE)


def test_stop_and_start() -> None:
    shop = project(SHOP)
    assert names(plan_stop(shop, running(shop)), Kind.STOP) == [
        "project-job-1",
        "project-web-1",
        "project-web-2",
        "project-db-1",
    ]
    stopped = running(shop, project_db_1={"State": "exited"}, project_web_1={"State": "exited"})
    plan = plan_start(shop, stopped)
    assert names(plan, Kind.START) == ["project-db-1", "project-web-1"]
    assert "wait db" in before(plan, plan.of(Kind.START)[1])
