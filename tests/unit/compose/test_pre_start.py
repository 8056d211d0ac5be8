"""What container a step of pre_start runs in."""

from __future__ import annotations

from gemel.client.project.prestart import changed
from gemel.compose.planimages import further_images
from tests.unit.compose.support import project


def test_a_step_is_the_service_but_for_what_it_says_and_what_is_the_services_own() -> None:
    of = project(
        """\
        services:
          a:
            image: app
            entrypoint: [run]
            user: "7"
            mem_limit: 64m
            environment: {A: "1", B: "1"}
            ports: ["80:80"]
            container_name: one
            healthcheck: {test: "true"}
            volumes: ["v:/v"]
            networks: {n: {ipv4_address: 10.9.8.7, priority: 5}}
            x-gemel: {otel: false, drain: 3s}
            pre_start:
              - {command: migrate, environment: {B: "2"}}
              - {command: [chown], image: tools, user: root, working_dir: /w}
        networks: {n: {}}
        volumes: {v: {}}
        """
    )
    service = of.service("a")
    first, second = (changed(of, service, step) for step in service.config["pre_start"])
    assert first.config["environment"] == {"A": "1", "B": "2"}
    assert (first.config["image"], first.config["entrypoint"]) == ("app", ["run"])
    assert first.config["networks"] == {"n": {"priority": 5}}
    assert first.config["x-gemel"] == {"otel": False}
    assert not {"ports", "container_name", "healthcheck", "volumes"} & set(first.config)
    assert first.config["mem_limit"] == service.config["mem_limit"]
    assert (second.config["image"], second.config["user"]) == ("tools", "root")
    assert "entrypoint" not in second.config and second.config["working_dir"] == "/w"
    assert further_images(service) == ["tools"]
