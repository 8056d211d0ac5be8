"""Authorises card payments."""

import threading
import uuid
from typing import Any

from service import Answer, Refused, serve

LIMIT_CENTS = 500_000
_charges: dict[str, dict[str, Any]] = {}
_lock = threading.Lock()


def luhn(number: str) -> bool:
    """Whether the card number's check digit is right (ISO/IEC 7812)."""
    digits = [int(digit) for digit in reversed(number)]
    doubled = [d * 2 - 9 if d > 4 else d * 2 for d in digits[1::2]]
    return (sum(digits[::2]) + sum(doubled)) % 10 == 0


def authorise(order: dict[str, Any]) -> dict[str, Any]:
    """A charge: approved or declined. One idempotency key is charged once."""
    number = str(order.get("card", "")).replace(" ", "")
    amount = order.get("amount_cents")
    if not number.isdigit() or not 12 <= len(number) <= 19 or not luhn(number):
        raise Refused(422, "the card number is not valid")
    if not isinstance(amount, int) or amount <= 0:
        raise Refused(422, "amount_cents must be a positive whole number")
    key = str(order.get("idempotency_key") or uuid.uuid4())
    with _lock:
        if key not in _charges:
            declined = number.endswith("0002") or amount > LIMIT_CENTS
            _charges[key] = {
                "id": str(uuid.uuid4()),
                "status": "declined" if declined else "approved",
                "amount_cents": amount,
                "card": f"**** {number[-4:]}",
            }
        return _charges[key]


def route(method: str, path: str, body: Any) -> Answer:
    if path == "/healthz":
        return 200, {"status": "ok"}
    if (method, path) == ("POST", "/charges"):
        charge = authorise(body if isinstance(body, dict) else {})
        return (200 if charge["status"] == "approved" else 402), charge
    raise Refused(404, f"no {path} here")


serve(8000, route)
