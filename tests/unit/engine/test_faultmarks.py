"""Which calls a fault is told to have met."""

from __future__ import annotations

import json
import time
from typing import Any

from gemel.engine.faultmarks import MOST, Mark, Marks, Touched
from gemel.model.faults import FaultRequest
from gemel.observe.capture.records import Peer


def fault(**given: Any) -> FaultRequest:
    return FaultRequest(source="a", target="b", **given)


def call(source: str = "a", target: str = "b", **given: Any) -> Touched:
    ends = {"start": time.time(), "duration": 0.1, "protocol": "http"} | given
    port = ends.pop("port", 80)
    return Touched(
        source=Peer(service=source, project="p"),
        target=Peer(service=target, project="p", port=port),
        **ends,
    )


def marks(**given: Any) -> Marks:
    made = Marks()
    made.begin(3, fault(**given))
    return made


def test_what_holds_both_ways_and_what_one_way() -> None:
    assert marks(loss=0.1).of(call()) == [Mark(3, "loss 10%")]
    assert marks(down=True).of(call("b", "a")) == [Mark(3, "down")]
    assert marks(latency=0.3).of(call()) == [Mark(3, "latency 300ms")]
    assert marks(latency=0.3).of(call("b", "a")) == []
    assert marks(loss=0.1).of(call("a", "c")) == []


def test_only_while_it_holds() -> None:
    one = marks(rate=1000)
    before = call(start=time.time() - 10, duration=1)
    across = call(start=time.time() - 10, duration=30)
    one.end(3)
    time.sleep(0.01)
    assert one.of(before) == [] and one.of(call()) == []
    assert one.of(across) == [Mark(3, "rate 1kbit")]
    timed = marks(loss=1, seconds=5)
    assert timed.of(call(start=time.time() + 4)) and not timed.of(call(start=time.time() + 6))


def test_http_faults_are_named_by_the_answers_that_they_touch() -> None:
    one = marks(status=503, share=0.5)
    words = "HTTP 503 of 50% of requests"
    assert one.of(call(fault="3")) == [Mark(3, words, sure=True)]
    assert one.of(call()) == []  # it was spared
    assert one.of(call(fault="4")) == []  # a service may write what it likes
    assert marks(latency=1).of(call(fault="3")) == [Mark(3, "latency 1000ms")]


def test_what_the_proxy_has_carried_is_late_for_sure() -> None:
    sure = [Mark(3, "latency 1000ms", sure=True)]
    assert marks(latency=1).of(call(carried="3")) == sure
    # for another fault, or when this one held no more
    assert marks(latency=1).of(call(carried="2")) == [Mark(3, "latency 1000ms")]
    assert marks(latency=1).of(call(carried="3", start=time.time() - 10)) == []
    # what an HTTP fault has spared went through the proxy, too
    assert marks(status=503, share=0.5).of(call(carried="3")) == []


def test_port_project_and_instance() -> None:
    assert marks(latency=1, port=81).of(call()) == []
    assert marks(latency=1, port=81).of(call(port=81))
    assert marks(latency=1, port=81).of(call(port=0))  # of a trace, that does not tell it
    assert marks(loss=1, project="q").of(call()) == []
    assert marks(loss=1, project="p").of(call())
    made = Marks()
    made.begin(1, FaultRequest(source="shop-a-1", target="0123456789abcdef", down=True))
    ends = Peer(service="a", name="shop-a-1"), Peer(service="b", instance="0123456789abcdef77")
    assert made.of(Touched(*ends, time.time(), 0.1))


def test_lines_and_bounds() -> None:
    made = Marks()
    line = (
        b'{"id":"1","protocol":"http","start":%f,"source":{"service":"a"},'
        b'"target":{"service":"b"},"duration":0.1}\n' % time.time()
    )
    assert made.line(line) == line
    for number in range(MOST + 5):
        made.begin(number, fault(loss=0.5))
    told = json.loads(made.line(line))
    assert len(told["faults"]) == MOST and told["faults"][0]["Id"] == 5
    assert told["faults"][0] == {"Id": 5, "Fault": "loss 50%", "Sure": False}
    for other in (b'{"dropped":3}\n', b'{"id":7}\n', b'{"id":"1"', b"\xff\n"):
        assert made.line(other) == other
