"""The dashboard in a real browser, over a real engine with services of both runtimes."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, StorageState, expect, sync_playwright

from tests.engine import IMAGE, EngineProcess
from tests.system.dashboardclient import COMPOSE, Socket, address, ask, closing, until

pytestmark = pytest.mark.root

#: Milliseconds that anything on the page may take: a busy machine is no failure.
PATIENCE = 60_000
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def shop(engine: EngineProcess) -> EngineProcess:
    folder = engine.base / "shop"
    folder.mkdir()
    (folder / "compose.yaml").write_text(COMPOSE)
    engine.gemel("up", "-d", cwd=folder)
    return engine


@contextlib.contextmanager
def still(shop: EngineProcess) -> Iterator[None]:
    """Nothing is called or said meanwhile: what moves with every new row is hard to click on."""
    shop.gemel("pause", "shop-web-1")
    try:
        yield
    finally:
        shop.gemel("unpause", "shop-web-1")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium")
    assert program, "the Debian package chromium is missing"
    with sync_playwright() as started:
        opened = started.chromium.launch(executable_path=program, args=FLAGS, timeout=120_000)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def let_in(shop: EngineProcess, browser: Browser) -> tuple[str, StorageState]:
    """The page's address, and the cookie of a browser that was let in."""
    context = browser.new_context()
    context.set_default_timeout(PATIENCE)
    opened = context.new_page()
    opened.goto(address(shop))
    opened.wait_for_url(re.compile(r"/(#.*)?$"))
    url, state = opened.url.partition("#")[0], context.storage_state()
    context.close()
    return url, state


@pytest.fixture
def page(browser: Browser, let_in: tuple[str, StorageState]) -> Iterator[Page]:
    """A page that was let in; what it complains about fails the test."""
    url, cookie = let_in
    context = browser.new_context(
        viewport={"width": 1280, "height": 800}, color_scheme="light", storage_state=cookie
    )
    context.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    opened = context.new_page()
    wrong: list[str] = []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)
    opened.goto(url)
    opened.wait_for_selector("tr.one")
    yield opened
    context.close()
    assert not wrong, wrong


# --- who is let in -----------------------------------------------------------------------


def test_nobody_comes_in_without_a_code(shop: EngineProcess) -> None:
    url = address(shop)
    for path in ("/", "/app.js", "/api/live", "/api/faults"):
        status, text, headers = ask(url, path)
        assert status == 401, path
        assert "gemel dashboard" in text  # what to do
        assert "script-src 'self'" in headers["Content-Security-Policy"]
    assert ask(url, "/login/wrong")[0] == 401
    assert ask(url, "/", Cookie=f"gemel-{urlsplit(url).port}=wrong")[0] == 401

    status, _, headers = ask(url, urlsplit(url).path)
    assert status == 200
    cookie = headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
    session = cookie.partition(";")[0]
    assert ask(url, "/", Cookie=session)[0] == 200
    assert ask(url, urlsplit(url).path)[0] == 401  # a code is good for once


def test_other_sites_are_not_answered(shop: EngineProcess) -> None:
    url = address(shop)
    host = urlsplit(url).netloc
    session = ask(url, urlsplit(url).path)[2]["Set-Cookie"].partition(";")[0]
    assert ask(url, "/", Cookie=session, Host="evil.example")[0] == 403
    assert ask(url, "/", Cookie=session, Origin="http://evil.example")[0] == 403
    # what acts needs an origin, and its own
    for headers in ({}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"}):
        assert ask(url, "/api/faults", "DELETE", Cookie=session, **headers)[0] == 403
        live = {"Upgrade": "websocket", "Connection": "Upgrade", **headers}
        assert ask(url, "/api/live", Cookie=session, **live)[0] == 403
    good = {"Cookie": session, "Origin": f"http://{host}"}
    assert ask(url, "/api/faults", "DELETE", **good)[0] == 200
    # nonsense has one clear answer
    assert ask(url, "/api/faults", "POST", b"[", **good)[0] == 400
    assert ask(url, "/api/instances/none", **good)[0] == 404
    assert ask(url, "/api/instances/none/explode", "POST", **good)[0] == 404
    assert ask(url, "/../../etc/passwd", **good)[0] == 404


def test_it_has_no_rights_and_instances_do_not_reach_it(shop: EngineProcess) -> None:
    port = urlsplit(address(shop)).port
    found = [
        entry
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and f"{shop.paths.run}".encode() in _cmdline(entry)
        and b"gemel.web" in _cmdline(entry)
    ]  # fmt: skip
    assert len(found) == 1
    status = (found[0] / "status").read_text()
    assert re.search(r"^Uid:\s+65534\s", status, re.MULTILINE)
    assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
    for where in ("127.0.0.1", "$(ip route | sed -n 's/default via \\([^ ]*\\).*/\\1/p')"):
        done = shop.gemel(
            "exec", "-T", "shop-api-1", "sh", "-c",
            f"nc -w 3 {where} {port} </dev/null && echo reached", check=False,
        )  # fmt: skip
        assert "reached" not in done.stdout


def _cmdline(entry: Path) -> bytes:
    try:
        return (entry / "cmdline").read_bytes()
    except OSError:
        return b""


# --- what is seen ------------------------------------------------------------------------


def test_services(page: Page) -> None:
    expect(page.locator("tr.one")).to_have_count(3)
    vm = page.locator("tr.one[data-name=shop-vm-1]")
    expect(vm).to_contain_text("micro VM")
    expect(vm).to_contain_text(re.compile("cloned|cold"))
    expect(vm).to_contain_text(re.compile(r"\d+ MiB"))
    api = page.locator("tr.one[data-name=shop-api-1]")
    expect(api).to_contain_text("healthy")

    page.locator("tr.one[data-name=shop-web-1]").click()
    drawer = page.locator("#drawer")
    expect(drawer).to_contain_text("COLOUR")
    expect(drawer).to_contain_text("green")
    assert "geheim" not in page.content()
    page.keyboard.press("Escape")
    expect(drawer).to_be_hidden()

    api.hover()
    api.get_by_title("Stop", exact=True).click()
    expect(api).to_contain_text("exited")
    api.get_by_title("Start", exact=True).click()
    expect(api).to_contain_text("healthy")


def test_keyboard_and_colours(page: Page) -> None:
    page.keyboard.press("j")
    page.keyboard.press("j")
    expect(page.locator("tr.selected")).to_have_attribute("data-name", "shop-vm-1")
    page.keyboard.press("k")
    page.keyboard.press("Enter")
    expect(page.locator("#drawer")).to_contain_text("shop-api-1")
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.keyboard.type("web")
    expect(page.locator("tr.one")).to_have_count(1)
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#help")).to_be_hidden()

    def colour() -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    light = colour()
    page.keyboard.press("d")
    until(lambda: colour() != light)
    page.reload()
    page.wait_for_selector("tr.one")
    assert colour() != light  # it is remembered
    page.emulate_media(color_scheme="dark")
    page.evaluate("localStorage.clear()")
    page.reload()
    page.wait_for_selector("tr.one")
    assert colour() != light  # it goes with the system's
    page.keyboard.press("g")
    page.keyboard.press("l")
    expect(page).to_have_title("Logs · gemel")


def test_logs_of_all_services_in_one_time_line(shop: EngineProcess, page: Page) -> None:
    page.goto(page.url.partition("#")[0] + "#/logs")
    lines = page.locator(".line:not([hidden])")
    page.locator("#search").fill("from the guest")
    expect(lines).to_have_count(1)
    page.locator("#search").fill("warn up")
    expect(lines.first).to_have_class(re.compile("level-warn"))
    page.locator("#search").fill("")
    web = lines.filter(has_text="served").last
    expect(web).to_contain_text("path=/orders")  # fields of a structured line
    expect(web).to_have_class(re.compile("level-info"))
    seen = lines.filter(has_text="served").last.inner_text()
    until(lambda: lines.filter(has_text="served").last.inner_text() != seen)  # it follows

    page.locator("#search").fill("served")
    expect(lines.filter(has_text="from the guest")).to_have_count(0)
    expect(page.locator("mark").first).to_have_text("served")
    page.locator("#search").fill("")
    page.locator(".chip", has_text="info").click()
    expect(lines.filter(has_text="served")).to_have_count(0)
    page.locator(".chip", has_text="info").click()

    def at_rest() -> bool:
        before = lines.last.inner_text()
        page.wait_for_timeout(1000)
        return lines.last.inner_text() == before

    with still(shop):
        until(at_rest)
        lines.filter(has_text="served").last.click()
        expect(page.locator("#drawer")).to_contain_text("/orders")


def test_levels(page: Page) -> None:
    levels = page.evaluate(
        """async (lines) => {
            const { level } = await import('/loglines.js');
            return lines.map(level);
        }""",
        [
            '{"level":"warning","msg":"x"}', '{"level":50,"msg":"x"}', '{"severity":"INFO"}',
            '{"msg":"x"}', "{broken", "2026-01-01 12:00:00 ERROR x", "[warn] x",
            "time=1 level=debug msg=x", "W1128 13:00:00.0 1 x.go:1] x", "INFO:     started",
            "there was an error in the text", '1.2.3.4 - - [x] "GET / HTTP/1.1" 503 12', "hello",
        ],
    )  # fmt: skip
    assert levels == [
        "warn", "error", "info", "", "", "error", "warn", "debug", "warn", "info", "", "error", "",
    ]  # fmt: skip


def view(page: Page, name: str) -> None:
    page.goto(page.url.partition("#")[0] + f"#/{name}")


def test_the_map_its_edge_and_a_fault_on_it(shop: EngineProcess, page: Page) -> None:
    view(page, "map")
    expect(page.locator(".node .name").filter(has_text="vm")).to_have_count(1)
    label = page.locator(".label")
    expect(label).to_have_count(1)
    expect(label).to_contain_text(re.compile(r"[\d.]+/(s|min).* p95 [\d.]+ m?s"))
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    drawer = page.locator("#drawer")
    expect(drawer).to_contain_text("web → api")
    page.locator("#loss").fill("1")
    drawer.get_by_role("button", name="Begin").click()
    expect(label).to_contain_text("⚡ loss 1%")
    drawer.get_by_role("button", name="Clear it").click()
    expect(label).not_to_contain_text("loss")
    page.locator("#latency").fill("30")
    page.locator("#jitter").fill("5")
    page.locator("#status").fill("503")
    page.locator("#share").fill("100")
    drawer.get_by_role("button", name="Begin").click()
    expect(label).to_contain_text("⚡ latency 30ms ± 5ms")
    expect(label).to_contain_text("HTTP 503")
    view(page, "calls")
    row = page.locator(".vrow.call:not([hidden])").filter(has_text="⚡").filter(has_text="503")
    expect(row.first).to_be_visible()
    with still(shop):
        row.first.click()
        expect(drawer).to_contain_text("HTTP 503 (its answer says so)")
    view(page, "traces")
    expect(page.locator(".trace.bad").first).to_be_visible()
    with still(shop):
        page.locator(".trace.bad").first.click()
        expect(page.locator(".waterfall .span .fault").first).to_have_text("⚡")
    view(page, "map")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    drawer.get_by_role("button", name="Clear it").click()
    expect(label).not_to_contain_text("⚡")


def test_traffic_and_one_call_whole(page: Page) -> None:
    view(page, "calls")
    rows = page.locator(".vrow.call:not([hidden])")
    expect(rows.filter(has_text="/index.html").first).to_contain_text("200")
    page.locator(".chip", has_text="4xx").click()
    expect(rows.filter(has_text="/index.html")).to_have_count(0)
    expect(rows.filter(has_text="/missing").first).to_contain_text("404")
    page.keyboard.press("k")
    page.keyboard.press("Enter")
    drawer = page.locator("#drawer")
    expect(drawer).to_contain_text("User-Agent")
    expect(drawer).to_contain_text("404")
    page.locator(".chip", has_text="All").click()


def test_a_trace_as_a_waterfall(page: Page) -> None:
    view(page, "traces")
    expect(page.locator(".trace").first).to_contain_text("GET /")
    page.locator(".trace").first.click()
    expect(page.locator(".waterfall .span").first).to_contain_text("api")
    page.locator(".waterfall .span").first.click()
    expect(page.locator("#drawer")).to_contain_text("observation")


@pytest.mark.parametrize("name", ["web", "vm"])
def test_a_terminal(page: Page, name: str) -> None:
    view(page, "terminal")
    page.locator(".target", has_text=re.compile(f"^{name}")).click()
    screen = page.frame_locator("iframe").locator(".xterm-rows")
    expect(screen).to_contain_text("#")
    # its input is in the frame already: keys go into the shell
    page.keyboard.type("echo $((6*7))x; stty size\n")
    expect(screen).to_contain_text("42x")
    expect(screen).to_contain_text(re.compile(r"[2-9]\d \d\d"))  # rows and columns
    page.keyboard.type("exit 3\n")
    expect(page.frame_locator("iframe").locator("#over")).to_contain_text("status 3")
    page.keyboard.press("Enter")  # a new one
    expect(page.frame_locator("iframe").locator("#over")).to_be_hidden()


@pytest.mark.parametrize("name", ["shop-web-1", "shop-vm-1"])
def test_a_shell_ends_with_its_page(shop: EngineProcess, page: Page, name: str) -> None:
    id = shop.ok("GET", f"/containers/{name}/json")["Id"]
    view(page, f"terminal/{id}")
    screen = page.frame_locator("iframe").locator(".xterm-rows")
    expect(screen).to_contain_text("#")
    page.keyboard.type("sleep 4242\n")

    def asleep() -> bool:
        return "sleep 4242" in shop.gemel("top", name).stdout

    until(asleep)
    page.goto("about:blank")
    until(lambda: not asleep())


def test_reports_of_comparisons(page: Page) -> None:
    view(page, "reports")
    expect(page.locator("main")).to_contain_text("gemel compare SERVICE")


# --- much ---------------------------------------------------------------------------------

FLOOD = """BEGIN { while (1) {
    for (i = 0; i < 1000; i++) print "INFO flood", n++
    fflush(); system("usleep 80000") } }"""


def test_ten_thousand_lines_a_second(shop: EngineProcess, page: Page) -> None:
    body = {"Image": IMAGE, "Cmd": ["awk", FLOOD]}
    id = shop.ok("POST", "/containers/create?name=flood", body)["Id"]
    url = address(shop)
    session = ask(url, urlsplit(url).path)[2]["Set-Cookie"].partition(";")[0]
    asleep = [Socket(url, session) for _ in range(4)]
    try:
        for one in asleep:
            one.look("logs")
        view(page, "logs")
        shop.ok("POST", f"/containers/{id}/start")
        figures = "import('/views/logs.js').then((logs) => logs.figures())"
        answers = []

        def flooded() -> bool:
            begun = time.monotonic()
            found = page.evaluate(figures)
            answers.append(time.monotonic() - begun)
            assert found["rows"] < 200  # only what is in sight exists
            assert found["lines"] <= 60_000
            return bool(found["lines"] + found["dropped"] > 50_000)

        until(flooded, 120)
        # the page answers meanwhile: it is used, not only looked at
        assert sorted(answers)[len(answers) // 2] < 15
        page.locator("#search").fill("flood 7")
        expect(page.locator("mark").first).to_have_text("flood 7")
        view(page, "services")
        expect(page.locator("tr.one[data-name=flood]")).to_contain_text("running")
        assert shop.call("GET", "/_ping")[0] == 200
    finally:
        for one in asleep:
            one.socket.close()
        shop.ok("DELETE", f"/containers/{id}?force=1")


def test_pages_are_bounded(shop: EngineProcess) -> None:
    url = address(shop)
    session = ask(url, urlsplit(url).path)[2]["Set-Cookie"].partition(";")[0]
    opened: list[Socket] = []
    try:
        while len(opened) < 200 and (not opened or opened[-1].status == 101):
            opened.append(Socket(url, session))
        assert opened[-1].status == 503
        assert 100 <= len(opened) <= 129
    finally:
        for one in opened:
            one.socket.close()
    until(lambda: closing(Socket(url, session)).status == 101)


# --- its life ----------------------------------------------------------------------------


def test_one_process_that_can_be_ended(fresh_engine: EngineProcess) -> None:
    one = json.loads(fresh_engine.gemel("dashboard", "--format", "json").stdout)
    two = json.loads(fresh_engine.gemel("dashboard", "--format", "json").stdout)
    assert one["Started"] and not two["Started"]
    assert one["Port"] == two["Port"] and one["Url"] != two["Url"]
    with socket.create_server(("127.0.0.1", 0)) as free:  # its neighbour may be in use
        other = free.getsockname()[1]
    refused = fresh_engine.gemel("dashboard", "--port", str(other), check=False)
    assert refused.returncode != 0 and "--stop" in refused.stderr
    assert "has ended" in fresh_engine.gemel("dashboard", "--stop").stdout
    assert "did not run" in fresh_engine.gemel("dashboard", "--stop").stdout
    with pytest.raises(OSError):
        ask(one["Url"], "/")
    # a port of one's own; and an engine that dies takes the page with it
    url = fresh_engine.gemel("dashboard", "--port", str(other)).stdout.strip()
    assert urlsplit(url).port == other
    assert ask(url, "/")[0] == 401
    fresh_engine.kill_hard()

    def gone() -> bool:
        try:
            ask(url, "/")
        except OSError:
            return True
        return False

    until(gone)
