"""Users and groups as Docker resolves them, from the image's own passwd and group (pure)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from gemel.errors import InvalidInput

_LAST_ID = (1 << 31) - 1


class Identity(NamedTuple):
    """Who a program runs as. home: of passwd, ``/`` without an entry.

    groups hold the primary one too, as Docker has it since CVE-2022-36109: else a
    program could get at a file by leaving a group of its own.
    """

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    home: str = "/"


class _Account(NamedTuple):
    name: str
    uid: int
    gid: int
    home: str


class _Group(NamedTuple):
    name: str
    gid: int
    members: tuple[str, ...]


def _accounts(text: bytes) -> Iterator[_Account]:
    for line in text.decode("utf-8", "replace").splitlines():
        parts = line.strip().split(":")
        if len(parts) >= 6 and parts[2].isdecimal() and parts[3].isdecimal():
            yield _Account(parts[0], int(parts[2]), int(parts[3]), parts[5])


def _groups(text: bytes) -> Iterator[_Group]:
    for line in text.decode("utf-8", "replace").splitlines():
        parts = line.strip().split(":")
        if len(parts) >= 3 and parts[2].isdecimal():
            members = parts[3].split(",") if len(parts) > 3 and parts[3] else []
            yield _Group(parts[0], int(parts[2]), tuple(member.strip() for member in members))


def _number(text: str, what: str) -> int | None:
    """The id that ``text`` is, or None if it is a name. Raises InvalidInput out of range."""
    if not text.isascii() or not text.isdecimal():
        return None
    value = int(text)
    if value > _LAST_ID:
        raise InvalidInput(f"{what} id {text} is out of range", f"the highest is {_LAST_ID}")
    return value


def _group_id(name: str, groups: Sequence[_Group]) -> int:
    for group in groups:
        if group.name == name:
            return group.gid
    number = _number(name, "group")
    if number is None:
        raise InvalidInput(
            f"unable to find group {name}: no matching entries in group file",
            resolution="use a group of the image's /etc/group, or a number",
        )
    return number


def resolve(user: str, extra: Sequence[str], passwd: bytes, group: bytes) -> Identity:
    """Docker's ``--user`` (``""``, ``name``, ``uid``, ``user:group``) and ``--group-add``.

    Raises InvalidInput for names that the image does not have.
    """
    name, _, group_name = user.partition(":")
    groups = list(_groups(group))
    number = _number(name, "user") if name else 0
    account = next(
        (
            entry
            for entry in _accounts(passwd)
            if (entry.name == name if name else entry.uid == 0)
            or (name and number is not None and entry.uid == number)
        ),
        None,
    )
    if account is None and number is None:
        raise InvalidInput(
            f"unable to find user {name}: no matching entries in passwd file",
            resolution="use a user of the image's /etc/passwd, or a number",
        )
    uid = account.uid if account else number or 0
    gid = account.gid if account else 0
    supplementary: list[int] = []
    if group_name:
        gid = _group_id(group_name, groups)
    elif account:
        supplementary = [entry.gid for entry in groups if account.name in entry.members]
    supplementary += [_group_id(entry, groups) for entry in extra]
    return Identity(
        uid,
        gid,
        tuple(dict.fromkeys([gid, *supplementary])),
        (account.home if account else "") or "/",
    )
