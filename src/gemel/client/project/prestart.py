"""``pre_start``: programs that run to their end before a service is started.

Each step runs in a container of its own that is made like one of the service (networks, runtime,
environment) and has the mounts of the container that is about to start. As in Compose, the steps
run once when a service is started of which nothing runs: at the first ``up``, after a change of
the file, ``--force-recreate``, a stop or a failure; not when replicas are added.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from typing import Any, Protocol

import msgspec

from gemel.client.engine import Client
from gemel.client.project import placed
from gemel.client.project.display import Progress
from gemel.client.project.waiting import last_lines
from gemel.compose import requests
from gemel.compose.project import Project, Service
from gemel.errors import Failed, NotFound

Json = dict[str, Any]
#: Seconds that a step may take.
LONGEST = 3600.0


class Maker(Protocol):
    """What of the executor is needed here."""

    client: Client
    project: Project
    shown: Progress
    image_ids: dict[str, str]


class PreStart:
    """The steps of all services of one run. May be called by several threads."""

    def __init__(self, maker: Maker) -> None:
        self._maker = maker
        self._done: set[tuple[str, int]] = set()
        self._locks: dict[str, threading.Lock] = defaultdict(threading.Lock)
        self._lock = threading.Lock()

    def run(self, name: str, id: str, *, remade: bool) -> None:
        """Runs what is due before the container is started. Raises Failed if a step fails.

        name: of the service. remade: it takes the place of another container.
        """
        service = self._maker.project.services.get(name)
        steps = (service.config.get("pre_start") or []) if service else []
        if service is None or not steps:
            return
        with self._lock:
            lock = self._locks[name]
        with lock:
            new = remade or not self._was_started(id)
            first = remade or not self._others(service, id)
            for number, step in enumerate(steps):
                each = str(step.get("per_replica", "")).lower() == "true"
                if (each and new) or (not each and first and (name, number) not in self._done):
                    self._step(service, number, step, id)
                    self._done.add((name, number))

    def _was_started(self, id: str) -> bool:
        state = self._maker.client.get(f"/containers/{id}/json")["State"]
        return str(state["Status"]) != "created"

    def _others(self, service: Service, id: str) -> bool:
        """Whether another container of the service runs."""
        labels = {"project": self._maker.project.name, "service": service.name, "oneoff": "False"}
        filters = {"label": [f"{requests.PREFIX}{key}={value}" for key, value in labels.items()]}
        found = self._maker.client.get("/containers/json", filters=filters)
        return any(one["Id"] != id for one in found)

    def _step(self, service: Service, number: int, step: Json, id: str) -> None:
        maker, client = self._maker, self._maker.client
        name = f"{maker.project.name}-{service.name}-pre_start-{number}"
        text = f"Container {name}"
        maker.shown.working(text, "Running")
        self._remove(name)  # of a run that was killed
        body = self._body(service, step, id)
        client.post("/containers/create", body, name=name, timeout=120)
        try:
            client.post(f"/containers/{name}/start", timeout=180)
            code = int(client.post(f"/containers/{name}/wait", timeout=LONGEST)["StatusCode"])
            if code:
                maker.shown.failed(text, f"Exited ({code})")
                raise Failed(
                    f"pre_start step {number} of {service.name} failed with exit code {code}",
                    details=last_lines(client, name),
                    resolution=f"{service.name} is not started; once this is mended, `gemel up`",
                )
        finally:
            self._remove(name)
        maker.shown.done(text, "Exited")

    def _remove(self, name: str) -> None:
        try:
            self._maker.client.delete(f"/containers/{name}", force=True, v=True, timeout=120)
        except NotFound:
            pass

    def _body(self, service: Service, step: Json, id: str) -> Json:
        project = self._maker.project
        made = changed(project, service, step)
        prepared = requests.container(
            project, made, 1, oneoff="pre_start", aliases=False,
            secrets_dir=placed.folder(self._maker.client.place, project.name),
            image_id=self._maker.image_ids.get(project.image_of(made), ""),
        )  # fmt: skip
        body: Json = msgspec.to_builtins(prepared.request)
        host = body["HostConfig"]
        host["VolumesFrom"] = [*(host.get("VolumesFrom") or []), id]
        host["RestartPolicy"] = {"Name": "no"}
        if str(step.get("privileged", "")).lower() == "true":
            host["Privileged"] = True
        return body


#: What of a service its pre_start steps have not: it is the service's own, or comes by its mounts.
_NOT = (
    "ports", "expose", "healthcheck", "restart", "container_name", "post_start", "pre_stop",
    "pre_start", "volumes", "configs", "secrets", "mac_address", "stdin_open", "tty", "build",
)  # fmt: skip
_NOT_OURS = ("healthcheck", "restart-on-unhealthy", "drain")


def changed(project: Project, service: Service, step: Json) -> Service:
    """The service as a step wants it. Pure."""
    config = {key: value for key, value in service.config.items() if key not in _NOT}
    image = step.get("image") or project.image_of(service)
    if image != project.image_of(service):
        config.pop("entrypoint", None)
    config |= {"image": image, "command": step.get("command")}
    config |= {key: step[key] for key in ("user", "working_dir") if step.get(key)}
    config["environment"] = {**(config.get("environment") or {}), **(step.get("environment") or {})}
    if isinstance(config.get("x-gemel"), dict):
        config["x-gemel"] = {k: v for k, v in config["x-gemel"].items() if k not in _NOT_OURS}
    config["networks"] = {
        key: {k: v for k, v in (use or {}).items() if not k.endswith("address")} or None
        for key, use in (config.get("networks") or {}).items()
    }
    return Service(service.name, config)
