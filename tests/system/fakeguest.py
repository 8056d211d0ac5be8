"""Stands in for QEMU under a relay: a guest that does what it is told to, good or bad.

Run in the relay's jail as `python3 /guest.py MODE [ARGUMENT]`; descriptor 3 is the channel.
"""

import os
import random
import socket
import struct
import sys
import time

CONFIG, START, STDIN, SIGNAL, CREDIT, SHUTDOWN, EXEC = 1, 2, 4, 7, 8, 9, 3
PING, PONG = 10, 73
FREEZE, THAW, FROZEN = 12, 13, 76
CHANGED, IDENTITY = 17, 19
REHEARSE = 20
HELLO, READY, STARTED, STDOUT, STDERR, EXIT, ERROR, STDIN_CREDIT = 65, 66, 67, 68, 69, 70, 71, 72


def frame(session, kind, payload=b"", flags=0):
    return struct.pack("<IIBBH", len(payload), session, kind, flags, 0) + payload


def send(data):
    while data:
        data = data[os.write(3, data) :]


def take(size):
    data = b""
    while len(data) < size:
        piece = os.read(3, size - len(data))
        if not piece:
            sys.exit(0)
        data += piece
    return data


def receive():
    length, session, kind, flags, _ = struct.unpack("<IIBBH", take(12))
    return session, kind, flags, take(length)


def until(kind, flags=0):
    while True:
        got = receive()
        if got[1] == kind and got[2] & flags == flags:
            return got


def until_start():
    while (got := receive())[1] != START or not got[2] & 1:
        if got[1] == CONFIG:  # the clock once more
            send(frame(0, READY))


def come_up():
    send(frame(0, HELLO, struct.pack("<I", 1) + b"6.1.0-fake"))
    config = b""
    while True:
        _, _, flags, payload = until(CONFIG)
        config += payload
        if flags & 1:
            break
    send(frame(0, READY))
    until_start()
    send(frame(1, STARTED, struct.pack("<I", 42)))
    return config


def end(status):
    send(frame(1, EXIT, struct.pack("<IB", status, 0)))
    until(SHUTDOWN)
    sys.exit(0)


def commanded():
    """What the relay tells a VMM over its control channel, and the descriptor that came along."""
    control = socket.socket(fileno=13)
    data, fds, _, _ = socket.recv_fds(control, 65536, 1)
    assert b"x-ignore-shared" in data, data
    return control, fds[0]


def plug(control, mode):
    """A clone that runs is given devices before the agent is asked."""
    control.sendall(b'{"event": "MIGRATION", "data": {"status": "completed"}}\n')
    told = b""
    while b'"plugged"' not in told:
        told += control.recv(65536)
    assert told.startswith(b"plug this\n"), told
    bad = mode == "unplugged"
    control.sendall(b'{"error": {}}\n' if bad else b'{"return": {}, "id": "plugged"}\n')


def clone(mode):
    """A clone of a template, started to wait for its state."""
    control, _ = commanded()
    if mode == "dies":
        sys.exit(1)
    if mode == "mute":
        time.sleep(600)
    if mode in ("refused", "endless"):
        answer = b'{"error": {"desc": "no"}}\n' if mode == "refused" else b"x" * 100000
        control.sendall(answer)
        time.sleep(600)
    if mode in ("plugged", "unplugged"):
        plug(control, mode)
    until(PING)
    if mode == "greets":
        send(frame(0, HELLO, struct.pack("<I", 1)))
    send(b"noise" * 100 if mode == "noise" else frame(0, PONG))
    if mode == "unready":
        time.sleep(600)
    until(CONFIG, 1)
    if mode == "failed-config":
        send(frame(0, ERROR, b"\3no disk"))
        time.sleep(600)
    send(frame(0, READY))
    until_start()
    send(frame(1, STARTED, struct.pack("<I", 42)))
    until(SIGNAL)
    end(128 + 15)


def until_thaw():
    """Whatever is told before the service may go on, and the answer to that."""
    until(THAW)
    send(frame(0, FROZEN, b"\0"))


def told(control, word):
    """Waits until the relay has commanded that."""
    text = b""
    while word not in text:
        got = control.recv(65536)
        if not got:
            sys.exit(0)
        text += got
    return text


def become(control):
    """A copy of a running service gets its identity, then its networks."""
    until(PING)
    send(frame(1, STDOUT, b"the original's\n") + frame(0, PONG))
    until(IDENTITY, 1)
    send(frame(0, READY))
    until(CONFIG, 1)  # the clock alone
    send(frame(0, READY))
    told(control, b'"linked"')


def copy(mode):
    """A copy of a guest whose service runs."""
    control, _ = commanded()
    become(control)
    if mode == "unlinked":
        control.sendall(b'{"error": {}}\n')
        time.sleep(600)
    control.sendall(b'{"return": {}, "id": "linked"}\n')
    session = until(EXEC, 1)[0]
    send(frame(1, STDOUT, b"the original's\n"))
    if mode == "early":
        send(frame(1, STARTED, struct.pack("<I", 42)))
    if mode in ("hookless", "broken"):
        kind, text = (1, b"no") if mode == "hookless" else (2, b"exec format error")
        send(frame(session, ERROR, bytes([kind]) + text))
    else:
        send(frame(session, STARTED, struct.pack("<I", 7)))
        send(frame(session, STDOUT, b"hook\n"))
        status = 3 if mode == "failing" else 0
        send(frame(session, EXIT, struct.pack("<IB", status, 0)))
    until_thaw()
    send(frame(1, STDOUT, b"thawed\n"))
    until(SIGNAL)
    end(128 + 15)


def adopt(control, mode):
    """One that stood by gets other disks."""
    told, fds = b"", []
    while b'"plugged"' not in told:
        data, more, _, _ = socket.recv_fds(control, 65536, 4)
        told, fds = told + data, fds + more
    assert told.count(b"add-fd") == len(fds) == 1, told
    assert told.index(b"add-fd") < told.index(b"adopt this"), told
    if mode == "refused":
        control.sendall(b'{"error": {"desc": "no"}}\n')
        time.sleep(600)
    if mode == "mute":
        time.sleep(600)
    control.sendall(b'{"return": {}, "id": "plugged"}\n' * (2 if mode == "repeats" else 1))


def standby(mode):
    """A clone that rehearses and waits for an instance; started once more, any other clone."""
    control, _ = commanded()
    until(PING)
    send(frame(0, PONG))
    _, kind, flags, payload = receive()
    if kind == REHEARSE:
        assert payload.index(b"entropy") < payload.index(b"rehearse this"), payload
        if mode == "forgets":
            send(frame(0, 75, b"the rehearsal failed: no words"))
            sys.exit(1)
        until(PING)
        send(frame(0, PONG))
        if mode == "speaks":
            send(frame(0, READY))
        if mode == "leaves":
            sys.exit(1)
        adopt(control, mode)
        _, kind, flags, payload = until(CONFIG)
        if mode == "noise":
            send(b"noise" * 100)
    while not flags & 1:
        _, kind, flags, payload = until(CONFIG)
    send(frame(0, READY))
    until_start()
    send(frame(1, STARTED, struct.pack("<I", 42)))
    until(SIGNAL)
    end(128 + 15)


def copyfuzz(seed):
    """A copy that at some point says what comes from the seed."""
    chance = random.Random(int(seed))
    control, _ = commanded()
    stage = chance.randrange(3)
    if stage:
        become(control)
    if stage > 1:
        control.sendall(b'{"return": {}, "id": "linked"}\n')
        until(EXEC, 1)
    noise(
        chance, [FROZEN, STDOUT, EXIT, STARTED, ERROR, READY, PONG, STDIN_CREDIT], [0, 1, 2, 2, 3]
    )


def source(mode):
    """A guest of which a snapshot is taken, again and again."""
    control, _ = commanded()
    until(PING)
    send(frame(0, PONG))
    until(CONFIG, 1)
    send(frame(0, READY))
    until_start()
    send(frame(1, STARTED, struct.pack("<I", 42)))
    refusals = 2 if mode == "slow" else 0
    while True:
        _, kind, _, payload = receive()
        if kind == FREEZE:
            send(frame(0, FROZEN, bytes([mode != "restless"])))
            if mode == "noise":
                noise(random.Random(1), [FROZEN, PONG, STDOUT, 75], [0, 1])
        elif kind == PING:
            send(frame(0, PONG, payload))
            if not payload:
                continue
            data, fds, _, _ = socket.recv_fds(control, 65536, 1)
            assert b"migrate" in data, data
            if mode == "dies":
                sys.exit(1)
            event = b'{"event": "MIGRATION", "data": {"status": "%s"}}\n'
            os.write(fds[0], b"devices")
            control.sendall(event % (b"failed" if mode == "failing" else b"completed"))
            told(control, b'"going"')
            while refusals:
                refusals -= 1
                control.sendall(b'{"error": {"desc": "not yet"}}\n')
                told(control, b'"going"')
            control.sendall(b'{"return": {}, "id": "going"}\n')
        elif kind == THAW:
            send(frame(0, FROZEN, b"\0"))
            send(frame(1, STDOUT, b"goes on\n"))
        elif kind == SIGNAL:
            end(128 + payload[0])


def template(mode):
    """A guest that is saved when it has greeted."""
    send(frame(0, HELLO, struct.pack("<I", 1)))
    until(PING)
    send(frame(0, PONG))
    control, state = commanded()
    if mode == "refused":
        control.sendall(b'{"error": {"desc": "no"}}\n')
        time.sleep(600)
    os.write(state, b"devices")
    told = b'{"event": "MIGRATION", "data": {"status": "%s"}}\n'
    control.sendall(told % b"setup" + told % b"completed")
    time.sleep(600)


def echo():
    """Echoes standard input and what execs are sent, until signal 15."""
    config = come_up()
    send(frame(1, STDOUT, b"config %d time=%d\n" % (len(config), b"time" in config)))
    send(frame(1, STDOUT, b"no end") + frame(1, STDERR, b" of line\n"))
    while True:
        session, kind, _, payload = receive()
        if kind == STDIN:
            send(frame(session, STDOUT, payload))
            send(frame(session, STDIN_CREDIT, struct.pack("<I", len(payload))))
        elif kind == EXEC:
            send(frame(session, STARTED, struct.pack("<I", 100 + session)))
        elif kind == CHANGED:
            send(frame(1, STDOUT, b"changed %s\n" % payload.replace(b"\0", b":")))
        elif kind == SIGNAL and session == 1:
            end(128 + payload[0])
        elif kind == SIGNAL:
            send(frame(session, EXIT, struct.pack("<IB", payload[0], 0)))


def say(seed):
    """Comes up, then sends one thing (hexadecimal)."""
    come_up()
    send(bytes.fromhex(seed))
    time.sleep(60)


def fuzz(seed):
    """Sends what comes from the seed: noise, or frames that are nearly right."""
    chance = random.Random(int(seed))
    if chance.random() < 0.7:
        come_up()
    noise(chance, [*range(63, 80), 255, 0], [0, 1, 1, 1, 2, 3, 2**31, 2**32 - 1])


def noise(chance, kinds, sessions):
    """Frames that are nearly right, and then what is none."""
    for _ in range(200):
        if chance.random() < 0.03:
            send(chance.randbytes(chance.randrange(1, 200)))
            continue
        length = chance.choice([0, 1, 4, 5, 5, 30, 4000, 65536])
        session = chance.choice(sessions)
        kind = chance.choice(kinds if chance.random() < 0.3 else [68, 69, 72, 75, 74, 77])
        send(frame(session, kind, chance.randbytes(length), chance.choice([0, 1, 255])))
    send(b"\xff" * 12)
    time.sleep(60)


def flood():
    """More output of an exec than was ever granted."""
    come_up()
    session = until(EXEC, 1)[0]
    send(frame(session, STARTED, struct.pack("<I", 7)))
    for _ in range(100):
        send(frame(session, STDOUT, b"x" * 65536))
    time.sleep(60)


def much(total):
    """As much output as is asked for, within the windows."""
    come_up()
    credit, left = 262144, int(total)
    while left:
        while not credit:
            session, kind, _, payload = receive()
            if kind == CREDIT and session == 1:
                credit += struct.unpack("<I", payload)[0]
        size = min(credit, left, 65536)
        send(frame(1, STDOUT, (b"%063d\n" % size) * (size // 64) + b"." * (size % 64)))
        credit -= size
        left -= size
    end(0)


def late(seconds=3600):
    """Answers pauses, and tells a time that is so much too late; shows what it is told."""
    come_up()
    while True:
        _, kind, _, payload = receive()
        if kind in (12, 13):
            send(frame(0, 76, bytes([kind == 12])))
        elif kind == 18:
            send(frame(0, 78, struct.pack("<Q", time.time_ns() - seconds * 10**9)))
            send(frame(1, STDOUT, b"asked\n"))
        elif kind == CONFIG:
            send(frame(1, STDOUT, payload + b"\n"))
            send(frame(0, READY))
        elif kind == SHUTDOWN:
            sys.exit(0)


def punctual():
    late(0)


def hang():
    time.sleep(600)


def spin():
    while True:
        pass


def leave():
    come_up()
    os.write(2, b"it was the fake\n")
    sys.exit(3)


def deaf():
    """Comes up and never powers off."""
    come_up()
    send(frame(1, EXIT, struct.pack("<IB", 5, 1)))
    time.sleep(600)


def unready():
    send(frame(0, HELLO, struct.pack("<I", 1)))
    time.sleep(600)


def refuse(kind):
    send(frame(0, HELLO, struct.pack("<I", 1)))
    until(CONFIG, 1)
    send(frame(0, READY))
    until_start()
    send(frame(1, ERROR, bytes([int(kind)]) + b'exec: "x": not so\x1b[31m'))
    time.sleep(600)


globals()[sys.argv[1]](*sys.argv[2:])
