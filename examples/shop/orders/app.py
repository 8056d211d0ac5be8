"""Takes orders: products and orders in PostgreSQL, the product list cached in Redis."""

import json
import os
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
import psycopg2.extensions
import psycopg2.pool
import redis
from service import Answer, Refused, serve

CACHE_SECONDS = 30
SCHEMA = """
CREATE TABLE IF NOT EXISTS products (
    sku text PRIMARY KEY, name text NOT NULL, price_cents integer NOT NULL CHECK (price_cents > 0));
CREATE TABLE IF NOT EXISTS orders (
    id uuid PRIMARY KEY, created timestamptz NOT NULL DEFAULT now(), status text NOT NULL,
    total_cents integer NOT NULL, charge uuid);
CREATE TABLE IF NOT EXISTS order_items (
    order_id uuid REFERENCES orders(id), sku text REFERENCES products(sku),
    quantity integer NOT NULL CHECK (quantity > 0), PRIMARY KEY (order_id, sku));
INSERT INTO products VALUES ('mug', 'Enamel mug', 1200), ('tee', 'T-shirt', 2500),
    ('cap', 'Cap', 1800) ON CONFLICT DO NOTHING;
"""

cache = redis.Redis.from_url(os.environ["REDIS_URL"], socket_timeout=5, socket_connect_timeout=5)


def connect() -> psycopg2.pool.ThreadedConnectionPool:
    """Connections to the database; it may need a moment after its health check."""
    for attempt in range(30):
        try:
            return psycopg2.pool.ThreadedConnectionPool(
                1, 16, os.environ["DATABASE_URL"], connect_timeout=10
            )
        except psycopg2.OperationalError as error:
            print(f"database: {error}".strip(), flush=True)
            time.sleep(min(2.0, 0.2 * (attempt + 1)))
    raise SystemExit("the database does not answer")


pool = connect()


@contextmanager
def transaction() -> Iterator[psycopg2.extensions.cursor]:
    """A cursor in a transaction of its own; a connection that broke is not used again."""
    connection = pool.getconn()
    try:
        with connection, connection.cursor() as cursor:
            yield cursor
    finally:
        pool.putconn(connection, close=bool(connection.closed))


def products() -> list[dict[str, Any]]:
    """All products, out of the cache if they are there."""
    try:
        kept = cache.get("products")
    except redis.RedisError as error:
        print(f"cache: {error}", flush=True)
        kept = None
    if kept:
        found: list[dict[str, Any]] = json.loads(kept)
        return found
    with transaction() as cursor:
        cursor.execute("SELECT sku, name, price_cents FROM products ORDER BY sku")
        found = [{"sku": s, "name": n, "price_cents": p} for s, n, p in cursor.fetchall()]
    try:
        cache.set("products", json.dumps(found), ex=CACHE_SECONDS)
    except redis.RedisError as error:
        print(f"cache: {error}", flush=True)
    return found


def charge(order: str, card: str, amount: int) -> dict[str, Any]:
    """Asks payments. Raises Refused with its answer if it refuses."""
    body = json.dumps({"idempotency_key": order, "card": card, "amount_cents": amount}).encode()
    request = urllib.request.Request(
        os.environ["PAYMENTS_URL"] + "/charges", body, {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=15) as answer:
            result: dict[str, Any] = json.load(answer)
            return result
    except urllib.error.HTTPError as error:
        told = json.load(error)
        if error.code == 402:
            return dict(told)
        raise Refused(error.code, told.get("error", "payment refused")) from None


def place(body: Any) -> Answer:
    """Checks, charges and keeps an order."""
    items = body.get("items") if isinstance(body, dict) else None
    if not isinstance(items, list) or not items:
        raise Refused(422, 'an order needs "items": [{"sku": …, "quantity": …}]')
    prices = {product["sku"]: product["price_cents"] for product in products()}
    quantities: dict[str, int] = {}
    for item in items:
        sku, quantity = item.get("sku"), item.get("quantity", 1)
        if sku not in prices:
            raise Refused(422, f"there is no product {sku!r}")
        if not isinstance(quantity, int) or not 0 < quantity <= 100:
            raise Refused(422, "a quantity is a whole number from 1 to 100")
        quantities[sku] = quantities.get(sku, 0) + quantity
    total = sum(prices[sku] * quantity for sku, quantity in quantities.items())
    order = str(uuid.uuid4())
    charged = charge(order, str(body.get("card", "")), total)
    status = "paid" if charged["status"] == "approved" else "declined"
    with transaction() as cursor:
        cursor.execute(
            "INSERT INTO orders (id, status, total_cents, charge) VALUES (%s, %s, %s, %s)",
            (order, status, total, charged["id"]),
        )
        for sku, quantity in quantities.items():
            cursor.execute("INSERT INTO order_items VALUES (%s, %s, %s)", (order, sku, quantity))
    return (201 if status == "paid" else 402), {
        "id": order,
        "status": status,
        "total_cents": total,
        "charge": charged,
    }


def show(id: str) -> Answer:
    """One order with its items."""
    try:
        uuid.UUID(id)
    except ValueError:
        raise Refused(404, f"there is no order {id}") from None
    with transaction() as cursor:
        cursor.execute("SELECT status, total_cents, created FROM orders WHERE id = %s", (id,))
        row = cursor.fetchone()
        if row is None:
            raise Refused(404, f"there is no order {id}")
        cursor.execute("SELECT sku, quantity FROM order_items WHERE order_id = %s", (id,))
        items = [{"sku": sku, "quantity": quantity} for sku, quantity in cursor.fetchall()]
    return 200, {
        "id": id,
        "status": row[0],
        "total_cents": row[1],
        "created": row[2].isoformat(),
        "items": items,
    }


def route(method: str, path: str, body: Any) -> Answer:
    if path == "/healthz":
        with transaction() as cursor:
            cursor.execute("SELECT 1")
        return 200, {"status": "ok"}
    if (method, path) == ("GET", "/products"):
        return 200, products()
    if (method, path) == ("POST", "/orders"):
        return place(body)
    if method == "GET" and path.startswith("/orders/"):
        return show(path.removeprefix("/orders/"))
    raise Refused(404, f"no {path} here")


with transaction() as first:
    first.execute("SELECT pg_advisory_xact_lock(1)")
    first.execute(SCHEMA)
serve(8000, route)
