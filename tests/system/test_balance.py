"""Virtual addresses and shared host ports: who gets a new connection, in both runtimes."""

from __future__ import annotations

import collections
import socket
import time
import urllib.request
from pathlib import Path

import pytest

from tests.engine import EngineProcess
from tests.imagestore import free_port
from tests.system.test_compose_cli import App

pytestmark = pytest.mark.root

MIXED = """
x-web: &web
  image: IMAGE
  command:
    - sh
    - -c
    - >-
      mkdir -p /w/cgi-bin; hostname >/w/index.html; touch /ok;
      printf '#!/bin/sh\\necho; echo $$REMOTE_ADDR\\n' >/w/cgi-bin/who; chmod +x /w/cgi-bin/who;
      httpd -p 80 -h /w; LOOP
  stop_grace_period: 1s
  scale: 2
  networks: {default: {aliases: [shared]}}
services:
  client: {image: IMAGE, command: ["sh", "-c", "LOOP"], stop_grace_period: 1s}
  web:
    <<: *web
    ports: ["127.0.0.1:PORT:80"]
    healthcheck: {test: "test -e /ok", interval: 300ms, retries: 1, start_period: 60s}
  vmweb:
    <<: *web
    runtime: microvm
    x-gemel: {healthcheck: {tcp: 80, interval: 300ms, retries: 200}}
  plain:
    <<: *web
    networks: [default]
    deploy: {endpoint_mode: dnsrr}
"""


class Mixed(App):
    """The application above."""

    def __init__(self, engine: EngineProcess, folder: Path) -> None:
        super().__init__(engine, folder)
        self.port = free_port()
        self.file(MIXED.replace("PORT", str(self.port)))
        self("up", "-d", "--wait")
        self.hosts = {name: self.shell(name, "hostname") for name in self.states()}
        self.one, self.two = (self.hosts[f"{self.name}-web-{n}"] for n in (1, 2))

    def shell(self, container: str, command: str) -> str:
        return self.engine.gemel("exec", container, "sh", "-c", command).stdout.strip()

    def addresses(self, container: str, name: str) -> list[str]:
        said = self.shell(container, f"nslookup {name} | sed -n '3,$s/^Address[^:]*: //p'")
        return sorted(said.split())

    def answers(self, url: str, count: int, container: str = "") -> collections.Counter[str]:
        """Who answers so many requests from within a container."""
        container = container or f"{self.name}-client-1"
        host = url.split("/")[2]
        if not host[0].isdigit():  # the resolver of a static busybox is not to be relied on
            address = self.addresses(container, host)[0]
            url = url.replace(host, address)
        loop = f"for n in $(seq {count}); do wget -qO- {url} || echo failed; done"
        return collections.Counter(self.shell(container, loop).split())

    def published(self, count: int) -> collections.Counter[str]:
        """Who answers so many requests to the published port."""
        found: collections.Counter[str] = collections.Counter()
        for _ in range(count):
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=20) as answer:
                found[answer.read().decode().strip()] += 1
        return found

    def address(self, container: str) -> str:
        networks = self.engine.ok("GET", f"/containers/{container}/json")["NetworkSettings"]
        return str(next(iter(networks["Networks"].values()))["IPAddress"])


@pytest.fixture(scope="module")
def mixed(engine: EngineProcess, tmp_path_factory: pytest.TempPathFactory) -> Mixed:
    return Mixed(engine, tmp_path_factory.mktemp("mixed"))


def test_a_name_leads_evenly_to_containers_and_micro_vms(mixed: Mixed) -> None:
    replicas = [f"{mixed.name}-{service}-{n}" for service in ("web", "vmweb") for n in (1, 2)]
    found = mixed.answers("http://shared/", 20)
    assert found == {mixed.hosts[name]: 5 for name in replicas}
    client = f"{mixed.name}-client-1"
    assert len(mixed.addresses(client, "shared")) == 1
    assert mixed.addresses(client, "shared")[0] not in {mixed.address(name) for name in replicas}
    every = sorted(mixed.address(name) for name in replicas)
    assert mixed.addresses(client, "tasks.shared") == every
    assert mixed.addresses(replicas[0], "shared") == every  # one of them sees the others
    assert len(mixed.addresses(client, "plain")) == 2  # endpoint_mode: dnsrr
    assert mixed.addresses(client, replicas[0]) == [mixed.address(replicas[0])]


def test_callers_are_seen_with_their_own_addresses(mixed: Mixed) -> None:
    client, guest = f"{mixed.name}-client-1", f"{mixed.name}-vmweb-1"
    for caller in (client, guest):
        found = mixed.answers("http://web/cgi-bin/who", 2, caller)
        assert {text.strip("[]").removeprefix("::ffff:") for text in found} == {
            mixed.address(caller)
        }


def test_an_instance_reaches_itself_by_the_address(mixed: Mixed) -> None:
    address = mixed.addresses(f"{mixed.name}-client-1", "web")[0]
    found = mixed.answers(f"http://{address}/", 4, f"{mixed.name}-web-1")
    assert found == {mixed.one: 2, mixed.two: 2}
    with urllib.request.urlopen(f"http://{address}/", timeout=20) as answer:  # so does the host
        assert answer.read().decode().strip() in (mixed.one, mixed.two)
    with pytest.raises(ConnectionRefusedError):  # what the host has is not there
        socket.create_connection((address, mixed.port), timeout=20)


def test_a_host_port_leads_evenly_to_all_replicas(mixed: Mixed) -> None:
    assert mixed.published(10) == {mixed.one: 5, mixed.two: 5}


def test_faults_hold_on_the_way_by_the_address(mixed: Mixed) -> None:
    for fault, failing in (
        ("--down", True),
        ("--http-status=503", True),
        ("--latency=20ms", False),
    ):
        mixed("fault", "add", "client", "web", fault)
        try:
            client = f"{mixed.name}-client-1"
            address = mixed.addresses(client, "web")[0]
            patience = 5 if failing else 60
            fetch = f"timeout {patience} wget -qO- http://{address}/"
            loop = f"for n in 1 2; do {fetch} || echo failed; done"
            said = set(mixed.shell(client, loop).split())
            assert said == ({"failed"} if failing else {mixed.one, mixed.two}), fault
        finally:
            mixed("fault", "clear")


def test_who_is_not_ready_gets_no_new_connection(mixed: Mixed) -> None:
    first = f"{mixed.name}-web-1"
    mixed.shell(first, "rm /ok")
    mixed.engine.wait_for("unhealthy", name=first)
    try:
        mixed.engine.settle(  # names follow the state at once, not within it
            lambda: set(mixed.answers("http://web/", 4)) == {mixed.two}, "it is still answered by"
        )
        assert set(mixed.answers("http://web/", 10)) == {mixed.two}
        assert mixed.one not in mixed.answers("http://shared/", 12)
        assert set(mixed.published(10)) == {mixed.two}
    finally:
        mixed.shell(first, "touch /ok")
        mixed.engine.wait_for("healthy", name=first)
    deadline = time.monotonic() + 60
    while set(mixed.answers("http://web/", 4)) != {mixed.one, mixed.two}:
        assert time.monotonic() < deadline


def test_all_goes_on_without_the_engine_and_with_the_next_one(mixed: Mixed) -> None:
    client = f"{mixed.name}-client-1"
    before = mixed.addresses(client, "shared")
    pid = mixed.engine.ok("GET", f"/containers/{client}/json")["State"]["Pid"]
    mixed.engine.kill_hard()
    assert pid
    assert mixed.published(4) == {mixed.one: 2, mixed.two: 2}
    mixed.engine.start()
    assert mixed.addresses(client, "shared") == before
    assert len(mixed.answers("http://shared/", 8)) == 4
    mixed("up", "-d", "--scale", "web=1", "--scale", "vmweb=1")
    assert mixed.addresses(client, "shared") == before  # whoever has been told it may go on
    assert len(mixed.answers(f"http://{before[0]}/", 4)) == 2
    mixed("down", "-t", "1")
    assert mixed.left() == []
