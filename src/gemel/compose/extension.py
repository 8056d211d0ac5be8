"""``x-gemel`` of a service: what a Compose file says to gemel only. Pure.

x-gemel:
  healthcheck:             # from outside; goes before healthcheck.test
    http: /healthz         # or tcp: 5432, or grpc: 9000
    port: 8080             # of http
    expect: 200            # status, or a list of them; else 200 to 399
    service: orders        # of grpc
    interval: 2s           # timeout, retries, start_period, start_interval: as in healthcheck
  restart-on-unhealthy: true
  core: true               # a crash may dump core (see debugging.md)
  isolation: strong        # runtime: auto takes a micro VM for it
  otel: false              # the service is not told where OTLP is taken
  snapshot: warm           # replicas are copies of a running one (or off: always booted cold)
  timeout: 10m             # of a service with provider: for each call of its program
  drain: 5s                # of an update: at most so long for open connections to end
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from gemel.compose import units
from gemel.compose.problems import Path, nearest
from gemel.compose.project import Service
from gemel.model.choice import ISOLATION_LABEL, STRONG
from gemel.model.image import HealthConfig

Json = dict[str, Any]
KEYS = (
    "healthcheck",
    "restart-on-unhealthy",
    "core",
    "drain",
    "isolation",
    "snapshot",
    "otel",
    "timeout",
)
HOOKS = ("post_start", "pre_stop")
HOOKS_LABEL = "gemel.hooks"
SNAPSHOTS = ("warm", "off", "on", True, False)
PROBES = ("http", "tcp", "grpc")
TIMES = ("interval", "timeout", "start_period", "start_interval")
HEALTH_KEYS = (*PROBES, "port", "expect", "service", *TIMES, "retries")
LABELS = {"restart-on-unhealthy": "gemel.restart-on-unhealthy", "core": "gemel.core"}


def wrong_keys(value: Any, known: Sequence[str], whose: str) -> Iterator[tuple[Path, str]]:
    """Keys of an ``x-gemel`` that mean nothing, or that it is no mapping."""
    if not isinstance(value, dict):
        if value is not None:
            yield (), "x-gemel must be a mapping"
        return
    for key in value:
        if key not in known:
            yield (key,), f'unknown key "{key}" of {whose}{nearest(key, known)}'


def problems(value: Any) -> Iterator[tuple[Path, str]]:
    """What is wrong in an ``x-gemel``: where below it, and words."""
    yield from wrong_keys(value, KEYS, "x-gemel")
    if not isinstance(value, dict):
        return
    for key in LABELS:
        if value.get(key, False) not in (True, False):
            yield (key,), f"{key} must be true or false"
    if value.get("isolation", STRONG) != STRONG:
        yield ("isolation",), f'isolation can only be "{STRONG}"'
    if value.get("otel", True) not in (True, False):
        yield ("otel",), "otel must be true or false"
    if value.get("snapshot", "on") not in SNAPSHOTS:
        yield ("snapshot",), 'snapshot must be "warm", "on" or "off"'
    for key in ("drain", "timeout"):
        yield from _duration(value, key, ())
    if "healthcheck" in value:
        yield from _health(value["healthcheck"])


def _health(check: Any) -> Iterator[tuple[Path, str]]:
    at: Path = ("healthcheck",)
    if not isinstance(check, dict):
        yield at, "x-gemel.healthcheck must be a mapping with http, tcp or grpc"
        return
    for key in check:
        if key not in HEALTH_KEYS:
            yield (*at, key), f'unknown key "{key}" of a health check{nearest(key, HEALTH_KEYS)}'
    kinds = [key for key in PROBES if key in check]
    if len(kinds) != 1:
        yield at, "x-gemel.healthcheck needs one of http, tcp and grpc"
        return
    yield from _probe(check, kinds[0], at)
    retries = check.get("retries", 1)
    if not isinstance(retries, int) or isinstance(retries, bool) or retries < 0:
        yield (*at, "retries"), "retries must be a whole number"
    for key in TIMES:
        yield from _duration(check, key, at)


def _probe(check: Json, kind: str, at: Path) -> Iterator[tuple[Path, str]]:
    where = "port" if kind == "http" else kind
    if where not in check:
        yield (*at, kind), f'{kind} needs the key "{where}": the port that it asks'
    elif not _port(check.get(where)):
        words = f"{where} must be a port (1 to 65535)"
        yield (*at, where if where in check else kind), words
    path = check.get("http", "/")
    if not (isinstance(path, str) and path.startswith("/") and path.isascii() and " " not in path):
        yield (*at, "http"), 'http must be a path, such as "/healthz"'
    for key, only in (("port", "http"), ("expect", "http"), ("service", "grpc")):
        if key in check and kind != only:
            yield (*at, key), f"{key} is of {only} checks only"
    if not all(_status(one) for one in _listed(check.get("expect", []))):
        yield (*at, "expect"), "expect must be an HTTP status (100 to 599), or a list of them"
    if not isinstance(check.get("service", ""), str):
        yield (*at, "service"), "service must be a text"


def _duration(value: Json, key: str, at: Path) -> Iterator[tuple[Path, str]]:
    if key not in value:
        return
    try:
        units.duration(str(value[key]))
    except ValueError:
        yield (*at, key), f"{key} must be a duration, such as 5s"


def _number(value: Any) -> int | None:
    if isinstance(value, str) and value.isdigit():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _port(value: Any) -> bool:
    number = _number(value)
    return number is not None and 0 < number < 65536


def _status(value: Any) -> bool:
    number = _number(value)
    return number is not None and 100 <= number <= 599


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def health(service: Service, base: HealthConfig | None) -> HealthConfig | None:
    """The check of ``x-gemel``, its times those of ``base`` where it names none; else ``base``."""
    check: Json = service.gemel.get("healthcheck") or {}
    if not check:
        return base
    made = HealthConfig(test=_test(check))
    if base is not None:
        made.interval, made.timeout, made.retries = base.interval, base.timeout, base.retries
        made.start_period, made.start_interval = base.start_period, base.start_interval
    for key in TIMES:
        if key in check:
            setattr(made, key, units.duration(str(check[key])))
    made.retries = int(check.get("retries", made.retries))
    return made


def _test(check: Json) -> list[str]:
    if "http" in check:
        expect = ",".join(str(one) for one in _listed(check.get("expect", [])))
        return ["HTTP", str(check["port"]), check["http"], *([expect] if expect else [])]
    if "grpc" in check:
        name = check.get("service") or ""
        return ["GRPC", str(check["grpc"]), *([name] if name else [])]
    return ["TCP", str(check["tcp"])]


def labels(service: Service) -> dict[str, str]:
    """Labels by which the engine knows what the file asks of it beyond Docker's API."""
    asked = service.gemel
    found = {label: "true" for key, label in LABELS.items() if asked.get(key)}
    if asked.get("isolation"):
        found[ISOLATION_LABEL] = STRONG
    if not asked.get("otel", True):
        found["gemel.otel"] = "false"
    if (service.config.get("deploy") or {}).get("endpoint_mode") == "dnsrr":
        found["gemel.endpoint-mode"] = "dnsrr"
    return found


def hooks(service: Service) -> dict[str, str]:
    """The label by which the engine runs post_start and pre_stop."""
    found = {key: service.config[key] for key in HOOKS if service.config.get(key)}
    return {HOOKS_LABEL: msgspec.json.encode(found).decode()} if found else {}


def drain(service: Service) -> float | None:
    """Seconds that an update waits for connections to end, or None if the file says nothing."""
    text = service.gemel.get("drain")
    return None if text is None else units.duration(str(text)) / 1e9
