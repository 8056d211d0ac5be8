"""Health check: exit status 0 if the URL answers 200. Light: the check runs every few seconds."""

import socket
import sys
from urllib.parse import urlsplit

url = urlsplit(sys.argv[1])
try:
    with socket.create_connection((url.hostname, url.port), timeout=5) as connection:
        request = f"GET {url.path} HTTP/1.0\r\nHost: {url.netloc}\r\n\r\n"
        connection.sendall(request.encode())
        answer = connection.makefile("rb").readline()
except OSError as error:
    sys.exit(f"{url.netloc}: {error}")
if answer.split()[1:2] != [b"200"]:
    sys.exit(answer.decode("latin-1").strip() or "no answer")
