"""HAR 1.2: calls as files that other tools read too, written and read."""

from __future__ import annotations

import base64
import binascii
import datetime
import json
import os
import tempfile
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from gemel.errors import InvalidInput

Json = dict[str, Any]
#: Bytes of a file that is read.
LIMIT = 512 << 20
_VERSIONS = {"http": "HTTP/1.1", "h2": "HTTP/2.0", "grpc": "HTTP/2.0"}


def who(peer: Json) -> str:
    """A service by the name under which others call it."""
    return str(peer.get("service") or peer.get("name") or peer.get("address") or "")


def entry(call: Json) -> Json:
    """A call of `GET /gemel/traffic` as an entry (HAR 1.2, log.entries)."""
    source, target = call["source"], call["target"]
    seconds = float(call["duration"])
    wait = seconds if call.get("first_byte") is None else float(call["first_byte"])
    request, response = call["request"], call["response"]
    began = datetime.datetime.fromtimestamp(float(call["start"]), datetime.UTC)
    made: Json = {
        "startedDateTime": began.isoformat(timespec="milliseconds"),
        "time": round(seconds * 1e3, 3),
        "request": _request(call, request, who(target), target.get("port", 0)),
        "response": _response(call, response),
        "cache": {},
        "timings": {
            "send": 0,
            "wait": round(min(wait, seconds) * 1e3, 3),
            "receive": round(max(0.0, seconds - wait) * 1e3, 3),
        },
        "serverIPAddress": target.get("address", ""),
        "connection": str(call.get("connection", "")),
        "_gemel": {
            "id": call["id"],
            "source": who(source),
            "target": who(target),
            "protocol": call["protocol"],
            "requestCut": bool(request.get("cut")),
            "responseCut": bool(response.get("cut")),
        },
    }
    if call.get("error"):
        made["comment"] = str(call["error"])
    return made


def _headers(part: Json) -> list[Json]:
    return [{"name": name, "value": value} for name, value in part.get("headers") or []]


def _header(part: Json, wanted: str) -> str:
    return next((v for n, v in part.get("headers") or [] if n.lower() == wanted), "")


def _request(call: Json, part: Json, service: str, port: int) -> Json:
    path = str(call["path"]) or "/"
    made: Json = {
        "method": call["method"],
        "url": f"http://{service}:{port}{path}",
        "httpVersion": _VERSIONS.get(call["protocol"], "HTTP/1.1"),
        "cookies": [],
        "headers": _headers(part),
        "queryString": [
            {"name": name, "value": value}
            for name, value in parse_qsl(urlsplit(path).query, keep_blank_values=True)
        ],
        "headersSize": -1,
        "bodySize": int(part.get("size", 0)),
    }
    if part.get("body") or part.get("size"):
        data: Json = {"mimeType": _header(part, "content-type"), "text": part.get("body", "")}
        if part.get("binary"):
            data["encoding"] = "base64"
        made["postData"] = data
    return made


def _response(call: Json, part: Json) -> Json:
    content: Json = {
        "size": int(part.get("size", 0)),
        "mimeType": _header(part, "content-type"),
        "text": part.get("body", ""),
    }
    if part.get("binary"):
        content["encoding"] = "base64"
    return {
        "status": call.get("status") or 0,
        "statusText": str(call.get("message") or ""),
        "httpVersion": _VERSIONS.get(call["protocol"], "HTTP/1.1"),
        "cookies": [],
        "headers": _headers(part),
        "content": content,
        "redirectURL": _header(part, "location"),
        "headersSize": -1,
        "bodySize": int(part.get("size", 0)),
    }


def document(entries: Iterable[Json], version: str) -> Json:
    """The whole file."""
    return {
        "log": {
            "version": "1.2",
            "creator": {"name": "gemel", "version": version},
            "entries": list(entries),
        }
    }


def write(path: str, content: Json) -> None:
    """Writes the file whole or not at all. Raises InvalidInput."""
    folder = os.path.dirname(os.path.abspath(path))
    try:
        fd, new = tempfile.mkstemp(dir=folder, prefix=".gemel-", suffix=".har")
    except OSError as error:
        raise InvalidInput(f"cannot write {path}", details=str(error)) from error
    try:
        with open(fd, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1, ensure_ascii=False)
        os.replace(new, path)
    except BaseException:
        os.unlink(new)
        raise


def read(path: str) -> list[Json]:
    """The entries of a file. Raises InvalidInput with the place for what is no HAR."""
    try:
        if os.path.getsize(path) > LIMIT:
            raise InvalidInput(f"{path} is larger than {LIMIT >> 20} MiB")
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except OSError as error:
        raise InvalidInput(f"cannot read {path}", details=error.strerror or str(error)) from error
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{path} is no JSON", details=str(error)) from error
    entries = (content.get("log") or {}).get("entries") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise InvalidInput(f"{path} is no HAR", details="it has no log.entries")
    for number, one in enumerate(entries):
        problem = _problem(one)
        if problem:
            raise InvalidInput(f"{path} is no HAR", details=f"log.entries[{number}]: {problem}")
    return entries


def _problem(one: Any) -> str:
    if not isinstance(one, dict):
        return "not an object"
    request, response = one.get("request"), one.get("response")
    if not isinstance(request, dict) or not isinstance(response, dict):
        return "request or response is missing"
    if not isinstance(request.get("method"), str) or not isinstance(request.get("url"), str):
        return "the request has no method or no url"
    try:
        if not urlsplit(request["url"]).hostname:
            return f"{request['url'][:80]!r} names no host"
        port(one)
        body(request.get("postData") or {})
        body(response.get("content") or {})
    except (ValueError, AttributeError, TypeError) as error:
        return str(error)
    if not isinstance(response.get("status"), int):
        return "the response has no status"
    return ""


def target(one: Json) -> str:
    """The service that was asked."""
    return str((one.get("_gemel") or {}).get("target") or urlsplit(one["request"]["url"]).hostname)


def port(one: Json) -> int:
    """Its port. Raises ValueError."""
    parts = urlsplit(one["request"]["url"])
    return parts.port or (443 if parts.scheme == "https" else 80)


def path(one: Json) -> str:
    """Path and query."""
    parts = urlsplit(one["request"]["url"])
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def body(part: Json) -> bytes:
    """The bytes of postData or content. Raises ValueError."""
    text = part.get("text") or ""
    if part.get("encoding") == "base64":
        try:
            return base64.b64decode(text, validate=True)
        except binascii.Error as error:
            raise ValueError(f"the body is no base64: {error}") from None
    return str(text).encode()


def headers(part: Json) -> list[tuple[str, str]]:
    """Headers in order."""
    return [(str(h["name"]), str(h["value"])) for h in part.get("headers") or []]
