"""Calls by way of a proxy of gemel's own are told once, as the caller's; no others are hidden."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gemel.host import carried
from gemel.host.carried import Carried, Ledger, Reader
from gemel.observe.capture.flows import Flows
from gemel.observe.capture.records import Exchange, Peer
from tests.unit.observe.wire import CLIENT, SERVER, Frame, Wire

GET = b"GET /%s HTTP/1.1\r\nHost: b\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
REFUSED = b"HTTP/1.1 503 No\r\nX-Gemel-Fault: 7\r\nContent-Length: 0\r\n\r\n"
HOST, VIRTUAL, OTHER = "10.0.0.254", "10.0.0.253", "10.0.0.3"
#: Port of the caller, and that of the proxy.
NEAR, FAR = 40000, 50000


class World:
    """Frames between a, b, another replica of b and the host, and what is recorded of them."""

    def __init__(self) -> None:
        self.found: list[Exchange] = []
        self.entered: list[Carried] = []
        self.flows = Flows(self.found.append, self._carried)
        peers = {
            CLIENT: Peer(instance="1", name="a"),
            SERVER: Peer(instance="2", name="b"),
            OTHER: Peer(instance="3", name="c"),
            HOST: Peer(name="host"),
            VIRTUAL: Peer(service="back"),
        }
        self.flows.directory.learn(peers, 0.0)
        self.now = 1000.0

    def _carried(self, port: int, at: float) -> Iterator[Carried]:
        return iter([one for one in self.entered if port == FAR and one.opened <= at])

    def enter(self, target: str = SERVER, once: bool = False, port: int = 80) -> None:
        """The proxy is about to connect for the caller."""
        key = carried.key((CLIENT, NEAR), (target, port))
        self.entered = [*self.entered[-1:], Carried(key, 7, once, self.now)]

    def see(self, *frames: Frame, client: str = CLIENT, server: str = SERVER) -> None:
        """Frames pass by, between these."""
        for _, raw in frames:
            self.now += 0.01
            ends = {CLIENT: client, SERVER: server}
            names = [ends[".".join(map(str, raw[at : at + 4]))] for at in (26, 30)]
            packed = b"".join(bytes(map(int, name.split("."))) for name in names)
            self.flows.packet(self.now, raw[:26] + packed + raw[34:])

    def told(self) -> list[tuple[str, str, str, int | None, str]]:
        """Who asked, who answered, what, its status, and the fault of the proxy."""
        return [
            (e.source.name, e.target.name or e.target.service, e.path, e.status, e.carried)
            for e in self.found
        ]


@pytest.mark.parametrize("once", [False, True])
def test_both_halves_are_one_call_with_the_times_of_the_caller(once: bool) -> None:
    world, near, far = World(), Wire(source=NEAR), Wire(source=FAR)
    world.see(*near.open(), near.ask(GET % b"x"))
    began = world.now
    world.enter(once=once)
    world.now += 5  # the latency
    world.see(*far.open(), far.ask(GET % b"x"), far.answer(OK), client=HOST)
    world.see(near.answer(OK))
    assert world.told() == [("a", "b", "/x", 200, "7")]
    assert world.found[0].start == pytest.approx(began)
    assert world.found[0].duration == pytest.approx(5.05)
    world.see(*far.close(), client=HOST)
    world.see(*near.close())
    assert len(world.found) == 1 and len(world.flows) == 0


def test_by_a_virtual_address_each_call_is_told_of_who_answered_it() -> None:
    world, near = World(), Wire(source=NEAR)
    world.flows.lead({SERVER: (VIRTUAL,), OTHER: (VIRTUAL,)})
    world.see(*near.open(), server=VIRTUAL)
    for server, path in ((SERVER, b"1"), (OTHER, b"2")):
        far = Wire(source=FAR)
        world.see(near.ask(GET % path), server=VIRTUAL)
        world.enter(VIRTUAL, once=True)
        world.see(*far.open(), far.ask(GET % path), far.answer(OK), client=HOST, server=server)
        world.see(*far.close(), client=HOST, server=server)
        world.see(near.answer(OK), server=VIRTUAL)
    # the next one the proxy answers itself
    world.see(near.ask(GET % b"3"), near.answer(REFUSED), *near.close(), server=VIRTUAL)
    assert world.told() == [
        ("a", "b", "/1", 200, "7"), ("a", "c", "/2", 200, "7"), ("a", "back", "/3", 503, ""),
    ]  # fmt: skip
    assert world.found[2].fault == "7" and world.found[2].target.port == 80


def test_what_is_not_the_proxys_is_not_hidden() -> None:
    world = World()
    world.enter()
    others = [
        (Wire(source=FAR + 1), HOST, SERVER),  # another port
        (Wire(source=FAR), HOST, OTHER),  # another target
        (Wire(81, source=FAR), HOST, SERVER),  # another port of the target
        (Wire(source=FAR), OTHER, SERVER),  # an instance's, by chance from that port
    ]
    for wire, client, server in others:
        frames = [*wire.open(), wire.ask(GET % b"o"), wire.answer(OK), *wire.close()]
        world.see(*frames, client=client, server=server)
    assert [one[0] for one in world.told()] == ["host", "host", "host", "c"]


def test_what_is_entered_is_one_connection() -> None:
    """The proxy may still hold a socket whose connection is over, and the port be another's."""
    world, near, far = World(), Wire(source=NEAR), Wire(source=FAR)
    world.see(*near.open(), near.ask(GET % b"x"))
    world.enter()
    syn, answered = far.open()
    world.see(syn, syn, answered, far.ask(GET % b"x"), far.answer(OK), *far.close(), client=HOST)
    world.see(near.answer(OK))
    again = Wire(source=FAR, start=777)
    frames = [*again.open(), again.ask(GET % b"y"), again.answer(OK), *again.close()]
    world.see(*frames, client=HOST)
    assert world.told() == [("a", "b", "/x", 200, "7"), ("host", "b", "/y", 200, "")]
    world.enter()  # and then it is the proxy's again
    last = Wire(source=FAR, start=999)
    world.see(*last.open(), last.ask(GET % b"z"), last.answer(OK), client=HOST)
    assert len(world.found) == 2


def test_begun_in_its_midst_a_call_is_told_once() -> None:
    world, near, far = World(), Wire(source=NEAR), Wire(source=FAR)
    near.open(), far.open()
    world.enter()
    near.ask(GET % b"x")  # before the recording began
    world.see(far.ask(GET % b"x"), far.answer(OK), client=HOST)
    world.see(near.answer(OK), near.ask(GET % b"y"))
    world.see(far.ask(GET % b"y"), far.answer(OK), client=HOST)
    world.see(near.answer(OK))
    assert world.told() == [("a", "b", "/x", 200, "7"), ("a", "b", "/y", 200, "7")]
    world.see(*far.close(), client=HOST)
    world.see(*near.close())
    new = Wire(source=NEAR, start=555)
    world.see(*new.open(), new.ask(GET % b"z"), new.answer(OK))
    assert world.told()[2:] == [("a", "b", "/z", 200, "")]


def test_a_connection_that_the_target_refuses() -> None:
    world, near, far = World(), Wire(source=NEAR), Wire(source=FAR)
    world.see(*near.open(), near.ask(GET % b"x"))
    world.enter()
    world.see(far.open()[0], far.frame(False, flags=4), client=HOST)
    world.see(near.frame(False, flags=4))
    assert world.told() == [("a", "b", "/x", None, "7")]
    assert world.found[0].failed


# --- the table ------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path: Path) -> Iterator[tuple[Ledger, Reader]]:
    with Reader(tmp_path / "carried") as reader, Ledger(tmp_path / "carried") as ledger:
        yield ledger, reader


def test_a_socket_is_entered_until_it_is_closed(table: tuple[Ledger, Reader]) -> None:
    ledger, reader = table
    before = time.time()
    sock = ledger.socket(("10.0.0.1", 1), ("10.0.0.2", 80), 3, once=True)
    port = sock.getsockname()[1]
    (one,) = reader.find(port, time.time())
    assert one.key == bytes((10, 0, 0, 1, 10, 0, 0, 2, 0, 1, 0, 80))
    assert (one.fault, one.once) == (3, True)
    assert not list(reader.find(port, before)) and not list(reader.find(port ^ 1, time.time()))
    during = time.time()
    sock.close()
    sock.close()
    time.sleep(0.001)
    # a packet of its time is found however late it is looked at
    assert list(reader.find(port, during)) == [one]
    assert not list(reader.find(port, time.time()))


def test_a_port_keeps_its_last_two(table: tuple[Ledger, Reader]) -> None:
    ledger, reader = table
    moments = []
    for number in range(1, 4):
        at = ledger._enter(9, bytes(12), number, False)
        time.sleep(0.001)
        moments.append(time.time())
        ledger.leave(at)
        time.sleep(0.001)
    assert [[one.fault for one in reader.find(9, moment)] for moment in moments] == [[], [2], [3]]


def test_what_a_process_has_entered_that_died_holds_no_more(tmp_path: Path) -> None:
    path = tmp_path / "carried"
    enter = (
        "import sys; from pathlib import Path; from gemel.host.carried import Ledger; "
        "Ledger(Path(sys.argv[1]))._enter(9, bytes(12), 1, False)"
    )
    subprocess.run([sys.executable, "-c", enter, str(path)], check=True, timeout=60)
    with Reader(path) as reader, Ledger(path) as another:
        assert not list(reader.find(9, time.time()))
        another._enter(9, bytes(12), 2, False)
        assert [one.fault for one in reader.find(9, time.time())] == [2]


def test_whatever_the_table_holds_is_read(tmp_path: Path) -> None:
    path = tmp_path / "carried"
    path.write_bytes(os.urandom(carried.SIZE))
    with Reader(path) as reader:
        for port in range(0, 1 << 16, 7):
            list(reader.find(port, 1e9))
    # one that is too short is made as long as it has to be
    path.write_bytes(b"x")
    with Reader(path) as reader:
        assert not list(reader.find(65535, 1e9))
