"""The front of the shop: a page, and a JSON API that asks orders."""

import html
import json
import os
import urllib.error
import urllib.request
from typing import Any

from service import Answer, Refused, serve

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>The gemel shop</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
 :root {{ color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }}
 main {{ max-width: 36rem; margin: 3rem auto; padding: 0 1rem }}
 table {{ width: 100%; border-collapse: collapse }}
 td, th {{ padding: .4rem; border-bottom: 1px solid #8884; text-align: left }}
 input {{ width: 4rem }} input.card {{ width: 14rem }}
 #answer {{ white-space: pre-wrap; font-family: monospace }}
</style></head><body><main><h1>The gemel shop</h1>
<form id="order"><table><tr><th>Product<th>Price<th>Quantity</tr>{rows}</table>
<p><label>Card <input class="card" name="card" value="4242424242424242"></label>
<button>Order</button></p></form><p id="answer"></p></main>
<script>
document.getElementById("order").addEventListener("submit", async (event) => {{
  event.preventDefault();
  const form = new FormData(event.target);
  const items = [...form].filter(([k, v]) => k !== "card" && +v > 0)
    .map(([sku, v]) => ({{ sku, quantity: +v }}));
  const answer = await fetch("/api/orders", {{ method: "POST",
    body: JSON.stringify({{ items, card: form.get("card") }}) }});
  document.getElementById("answer").textContent = JSON.stringify(await answer.json(), null, 2);
}});
</script></body></html>
"""
ROW = (
    "<tr><td>{name}<td>{price}<td><input type=number min=0 max=100 name={sku} value=0 "
    'aria-label="Quantity of {name}"></tr>'
)


def ask(method: str, path: str, body: Any = None) -> Answer:
    """Asks orders and passes its answer on."""
    data = json.dumps(body).encode() if method == "POST" else None
    request = urllib.request.Request(
        os.environ["ORDERS_URL"] + path, data, {"Content-Type": "application/json"}, method=method
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def page() -> bytes:
    """The page with the products of the moment."""
    _, products = ask("GET", "/products")
    rows = "".join(
        ROW.format(
            name=html.escape(product["name"]),
            sku=html.escape(product["sku"]),
            price=f"{product['price_cents'] / 100:.2f} €",
        )
        for product in products
    )
    return PAGE.format(rows=rows).encode()


def route(method: str, path: str, body: Any) -> Answer:
    if path == "/healthz":
        return 200, {"status": "ok"}
    if (method, path) == ("GET", "/"):
        return 200, page()
    if path in ("/api/products", "/api/orders") or path.startswith("/api/orders/"):
        return ask(method, path.removeprefix("/api"), body)
    raise Refused(404, f"no {path} here")


serve(8080, route)
