"""The engine over TCP: who is let in, and who is not."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.dockercli import DOCKER
from tests.engine import IMAGE, EngineProcess
from tests.imagestore import free_port

pytestmark = pytest.mark.root

TOKEN = "a-token-of-enough-letters"


def openssl(*words: str | Path, folder: Path) -> None:
    subprocess.run(["openssl", *map(str, words)], cwd=folder, check=True, capture_output=True)


def certificates(folder: Path) -> None:
    """ca, server and client as docker wants them: ca.pem, cert.pem, key.pem."""
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    openssl("req", "-x509", *curve, "-keyout", "ca-key.pem", "-out", "ca.pem", "-subj", "/CN=ca",
            folder=folder)  # fmt: skip
    kinds = {"server": "subjectAltName=IP:127.0.0.1", "client": "keyUsage=digitalSignature"}
    for name, extension in kinds.items():
        openssl("req", "-x509", *curve, "-CA", "ca.pem", "-CAkey", "ca-key.pem",
                "-addext", extension, "-addext", "basicConstraints=critical,CA:FALSE",
                "-keyout", f"{name}-key.pem", "-out", f"{name}.pem", "-subj", f"/CN={name}",
                folder=folder)  # fmt: skip
    for target, source in (("cert.pem", "client.pem"), ("key.pem", "client-key.pem")):
        (folder / target).write_bytes((folder / source).read_bytes())


def started(*options: str, address: str = "127.0.0.1") -> Iterator[tuple[EngineProcess, int]]:
    port = free_port()
    engine = EngineProcess("--listen", f"tcp://{address}:{port}", *options)
    try:
        engine.start()
        engine.import_busybox()
        yield engine, port
    finally:
        engine.stop()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tls")
    certificates(made)
    return made


@pytest.fixture(scope="module")
def by_tls(folder: Path) -> Iterator[tuple[EngineProcess, int]]:
    yield from started(
        "--tls-cert", str(folder / "server.pem"), "--tls-key", str(folder / "server-key.pem"),
        "--tls-ca", str(folder / "ca.pem"), address="0.0.0.0",
    )  # fmt: skip


@pytest.fixture(scope="module")
def by_token(folder: Path) -> Iterator[tuple[EngineProcess, int]]:
    (folder / "token").write_text(TOKEN + "\n")
    (folder / "token").chmod(0o600)
    yield from started("--token-file", str(folder / "token"))


def test_docker_with_a_certificate(by_tls: tuple[EngineProcess, int], folder: Path) -> None:
    engine, port = by_tls
    env = {**engine.env, "DOCKER_HOST": f"tcp://127.0.0.1:{port}", "DOCKER_TLS_VERIFY": "1",
           "DOCKER_CERT_PATH": str(folder)}  # fmt: skip
    data = b"x" * 3_000_000
    # the client ends its input and still reads: half of a TLS connection is over
    done = subprocess.run([DOCKER, "run", "--rm", "-i", IMAGE, "sh", "-c", "wc -c; exit 3"],
                          env=env, input=data, capture_output=True, timeout=180)  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (3, b"3000000"), done
    done = subprocess.run([DOCKER, "images", "-q"], env=env, capture_output=True, timeout=180)
    assert done.returncode == 0 and done.stdout.strip()


def test_nobody_without_a_certificate(by_tls: tuple[EngineProcess, int], folder: Path) -> None:
    _, port = by_tls
    trusting = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    with socket.create_connection(("127.0.0.1", port), 90) as plain:
        with pytest.raises(OSError):
            with trusting.wrap_socket(plain, server_hostname="127.0.0.1") as tls:
                tls.sendall(b"GET /_ping HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                if not tls.recv(100):
                    raise ConnectionResetError("closed")
    with socket.create_connection(("127.0.0.1", port), 90) as plain:
        plain.sendall(b"GET /_ping HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert b"200" not in plain.recv(1000)


def ask(port: int, headers: dict[str, str]) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=90)
    try:
        connection.request("GET", "/_ping", headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_tokens_hosts_and_origins(by_token: tuple[EngineProcess, int]) -> None:
    _, port = by_token
    good = {"Authorization": f"Bearer {TOKEN}"}
    assert ask(port, good) == (200, b"OK")
    assert ask(port, {})[0] == 401
    assert ask(port, {"Authorization": "Bearer wrong"})[0] == 401
    assert ask(port, {"Authorization": f"Basic {TOKEN}"})[0] == 401
    assert ask(port, {**good, "Host": "evil.example"})[0] == 403
    assert ask(port, {**good, "Host": f"localhost:{port}"})[0] == 200
    assert ask(port, {**good, "Origin": "http://evil.example"})[0] == 403
    assert ask(port, {**good, "Origin": f"http://127.0.0.1:{port}"})[0] == 200


def test_docker_with_a_token(by_token: tuple[EngineProcess, int], tmp_path: Path) -> None:
    engine, port = by_token
    config = {"HttpHeaders": {"Authorization": f"Bearer {TOKEN}"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    env = {**engine.env, "DOCKER_HOST": f"tcp://127.0.0.1:{port}", "DOCKER_CONFIG": str(tmp_path)}
    run = [DOCKER, "run", "--rm", IMAGE, "echo", "hi"]
    done = subprocess.run(run, env=env, capture_output=True, timeout=180)
    assert done.stdout == b"hi\n", done


def test_no_instance_reaches_it(by_tls: tuple[EngineProcess, int]) -> None:
    """It listens on all addresses, the bridge's too; another port of the host is reached there."""
    engine, port = by_tls
    [bridge] = [n for n in engine.ok("GET", "/networks") if n["Name"] == "bridge"]
    gateway = bridge["IPAM"]["Config"][0]["Gateway"]
    with socket.create_server(("0.0.0.0", 0)) as other:
        other.settimeout(120)
        script = "nc -w 5 $0 $1 </dev/null; nc -w 5 $0 $2 </dev/null || echo no"
        ports = (str(other.getsockname()[1]), str(port))
        run = [DOCKER, "run", "--rm", IMAGE, "sh", "-c", script, gateway, *ports]
        with subprocess.Popen(run, env=engine.env, stdout=subprocess.PIPE) as client:
            with other.accept()[0] as accepted:
                accepted.sendall(b"other\n")
            output, _ = client.communicate(timeout=180)
    assert output == b"other\nno\n"


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--listen", "tcp://127.0.0.1:2376"), "needs TLS client certificates or a token"),
        (("--listen", "tcp://0.0.0.0:2376", "--token-file", "{token}"), "in the clear"),
        (("--listen", "http://127.0.0.1:1", "--token-file", "{token}"), "cannot listen on"),
        (("--listen", "tcp://127.0.0.1:1", "--token-file", "/etc/passwd"), "others can read"),
    ],
)
def test_nothing_unsafe_is_begun(tmp_path: Path, options: tuple[str, ...], word: str) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    engine = EngineProcess()
    words = [option.format(token=token) for option in options]
    done = engine.gemel("daemon", *words, check=False, timeout=180)
    assert done.returncode != 0 and word in done.stderr
    for path in (engine.paths.kernels, engine.paths.root, engine.base):
        path.unlink() if path.is_symlink() else path.rmdir()
