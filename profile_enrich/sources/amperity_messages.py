"""Response types of Amperity's Profile API, as the vendor's OpenAPI file describes them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, cast

from .._utils.validation import is_int
from ..errors import SourceResponseError
from .http.json_body import array, decode_json, decode_list, obj

__all__ = [
    "Index",
    "Page",
    "ProfileRow",
    "advance",
    "pages",
    "read_index",
    "read_page",
    "read_profile",
    "says_not_found",
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list.

    Args:
        data: the rows, in the vendor's order.
        next_token: the token of the next page; `None` on the last page.
        total: the number of rows on all pages, if it was requested and the vendor sent it.
        texts: the text of each row, where it was asked for and each fits one line.
    """

    data: tuple[T, ...]
    next_token: str | None = None
    total: int | None = None
    texts: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Index:
    """A named collection of profiles.

    Args:
        id: e.g. `"idx-xyz789"`.
        name: the display name.
        description: the description, if any.
        created_at: RFC 3339 text, as received.
        updated_at: RFC 3339 text, as received.
    """

    id: str
    name: str
    description: str | None = None
    created_at: str | None = None
    updated_at: str | None = None


@dataclass(frozen=True, slots=True, repr=False)
class ProfileRow:
    """One profile of a list. The `repr` shows neither its id nor its attributes.

    Args:
        id: the profile's id.
        index_id: the id of its index.
        attributes: the attributes as received; `{}` if there are none. The vendor documents text values only.
    """

    id: str
    index_id: str
    attributes: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"<ProfileRow with {len(self.attributes)} attributes>"


def read_index(value: object) -> Index:
    """Parse one index.

    Raises:
        SourceResponseError: the data are not as documented.
    """
    row = obj(value, "an index")
    optional = [_text(row, name) for name in ("description", "created_at", "updated_at")]
    return Index(_required(row, "id", "an index"), _required(row, "name", "an index"), *optional)


def read_profile(value: object) -> ProfileRow:
    """Parse one profile.

    Raises:
        SourceResponseError: the data are not as documented.
    """
    row = obj(value, "a profile")
    id, index_id, attributes = row.get("id"), row.get("index_id"), row.get("attributes")
    if not (type(id) is type(index_id) is str and id and index_id):
        id, index_id = _required(row, "id", "a profile"), _required(row, "index_id", "a profile")
    return ProfileRow(id, index_id, {} if attributes is None else obj(attributes, "attributes"))


def read_page(body: bytes, read: Callable[[object], T], *, keep_text: bool = False) -> Page[T]:
    """Parse one page; an empty `next_token` counts as none.

    Args:
        body: the body of the response.
        read: parses one row.
        keep_text: keep the text of each row as well.

    Raises:
        SourceResponseError: the data are not as documented.
    """
    whole = decode_list(body, "data") if keep_text else None
    answer, texts = (obj(decode_json(body), "the answer"), list[str]()) if whole is None else whole
    rows = tuple(read(row) for row in array(answer.get("data"), "data"))
    total = answer.get("total")
    if total is not None and (not is_int(total) or total < 0):
        raise SourceResponseError("amperity's answer is not as documented: total is not a number of rows")
    return Page(rows, _text(answer, "next_token") or None, total, tuple(texts))


def says_not_found(body: bytes) -> bool:
    """Return whether the body of a 404 is the vendor's error envelope, not the page of a proxy or another server."""
    try:
        envelope: Any = decode_json(body)
    except SourceResponseError:
        return False
    fields = cast("dict[str, object]", envelope) if isinstance(envelope, dict) else {}
    return fields.get("status") == 404 and isinstance(fields.get("message"), str)


def _required(row: dict[str, Any], name: str, what: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value:
        raise SourceResponseError(f"amperity's answer is not as documented: {what} has no {name}")
    return value


def _text(row: dict[str, Any], name: str) -> str | None:
    value = row.get(name)
    if value is not None and not isinstance(value, str):
        raise SourceResponseError(f"amperity's answer is not as documented: {name} is not text")
    return value


async def pages(
    load: Callable[[str | None], Coroutine[Any, Any, Page[T]]], token: str | None
) -> AsyncGenerator[Page[T]]:
    """Iterate over the pages that `load` returns, starting at `token`."""
    seen: set[str] = set() if token is None else {token}
    while True:
        page = await load(token)
        yield page
        if page.next_token is None:
            return
        token = advance(page.next_token, seen)


def advance(token: str, seen: set[str]) -> str:
    """Return the next token, checked to be new: a repeated token would make the loop endless."""
    if token in seen:
        raise SourceResponseError("amperity repeats a next_token; the list would never end")
    seen.add(token)
    return token
