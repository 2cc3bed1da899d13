"""The profile in templates (Jinja2; extra `templates`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from starlette.requests import HTTPConnection

from ._utils.frozen_types import Withheld
from .errors import MissingExtraError
from .profile import Profile, Reason
from .web.request_lookup import lookup_of

try:
    from jinja2 import ChainableUndefined
except ImportError:
    raise MissingExtraError("profile_enrich.templating", "templates") from None

__all__ = ["ProfileContext", "TemplateProfile", "profile_context"]

_METHODS = frozenset({"items", "keys", "values"})


class _Missing(str):
    """What a template gets for what is not there. Whatever it does with it, it does not fail.

    To Jinja2 it is an `Undefined`, so that `default` and `is defined` work; to JSON encoders, which look at the type
    itself, it is a string without characters. A comparison with it is false; arithmetic with it, an attribute, an item
    and a call of it are missing again; a conversion fails in the way that makes Jinja2's filters return their default.
    """

    __slots__ = ("_method",)
    __class__ = property(lambda self: ChainableUndefined)  # pyright: ignore[reportIncompatibleMethodOverride]
    _method: Callable[[], Any]

    def __getattribute__(self, name: str) -> Any:
        return object.__getattribute__(self, name) if name.startswith("_") else self

    def _itself(self, *args: object, **kwargs: object) -> Any:
        return self

    def __call__(self, *args: object, **kwargs: object) -> Any:
        """Call the method of the same name as this attribute; without one, what it would return is missing too."""
        return self._method() if hasattr(self, "_method") else self

    def _false(self, other: object) -> bool:
        return False

    def _empty(self) -> Iterator[Any]:
        return iter(())

    def __int__(self) -> int:
        raise ValueError("there is no value")

    def __float__(self) -> float:
        raise ValueError("there is no value")

    def __index__(self) -> int:
        return 0

    def __bool__(self) -> bool:
        return False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ChainableUndefined)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash("")

    def __repr__(self) -> str:
        return "Undefined"

    def __html__(self) -> str:
        return ""

    def __format__(self, format_spec: str) -> str:
        return ""

    # Of any type: they take the place of the text's methods, which return text.
    __getitem__ = cast(Any, _itself)
    __iter__ = cast(Any, _empty)
    __lt__ = __le__ = __gt__ = __ge__ = __contains__ = _false
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = cast(Any, _itself)
    __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = __pow__ = __rpow__ = cast(Any, _itself)
    __mod__ = __rmod__ = __neg__ = __pos__ = __abs__ = __round__ = cast(Any, _itself)


_MISSING = _Missing()


def _wrapped(value: object) -> Any:
    """A value of the profile as templates see it."""
    if value is None:
        return _MISSING
    if isinstance(value, Mapping):
        return TemplateProfile(cast("Mapping[str, Any]", value))
    if isinstance(value, list | tuple):
        return _TemplateList(cast("list[Any]", value))
    return value


class TemplateProfile(Withheld, dict[str, Any]):
    """A profile as templates see it: every name is an attribute, and a missing attribute is empty.

    `{{ profile.first_name or "there" }}` renders the default for people without that attribute, and so do
    `{{ profile.address.city or "your city" }}`, `{% if profile.visits > 3 %}`, `{{ profile.visits|int }}` and
    `{% for offer in profile.offers %}`, whatever the environment's own `undefined` is. `{% if profile %}` asks whether
    there is a profile, `{% if "tier" in profile %}` whether it has an attribute. Text or a number in one called
    `items`, `keys` or `values` is `{{ profile["items"] }}`.

    Args:
        profile: the profile, or an object in it.
    """

    __slots__ = ("_found", "_method", "_text")
    _method: Callable[[], Any]

    def __init__(self, profile: Profile | Mapping[str, Any]) -> None:
        super().__init__(profile.attributes if isinstance(profile, Profile) else profile)
        self._found = bool(profile)
        self._text = repr(profile) if isinstance(profile, Profile) else f"<TemplateProfile, {len(self)} values>"

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("_"):
            return object.__getattribute__(self, name)
        if name not in _METHODS:
            return self[name]
        method = object.__getattribute__(self, name)
        value = super().get(name)
        if isinstance(value, str | int | float):
            return method
        # Both the customer's attribute and, for Jinja2's filters (items, dictsort, tojson), the method of its name.
        both = _Missing() if value is None else _wrapped(value)
        both._method = method
        return both

    def __call__(self, *args: object, **kwargs: object) -> Any:
        """Call the method of the same name as this attribute."""
        return self._method() if hasattr(self, "_method") else _MISSING

    def __getitem__(self, name: str) -> Any:
        return _wrapped(super().get(name))

    def keys(self) -> Any:
        """The names."""
        return list(self)

    def items(self) -> Any:
        """Pairs of name and value."""
        return [(name, _wrapped(value)) for name, value in super().items()]

    def values(self) -> Any:
        """The values."""
        return [_wrapped(value) for value in super().values()]

    def __bool__(self) -> bool:
        return self._found

    def __repr__(self) -> str:
        return self._text

    __str__ = __html__ = __repr__


class _TemplateList(Withheld, list[Any]):
    """A list of the profile as templates see it: an item that is not there is missing, and does not fail."""

    __slots__ = ("_method",)
    _method: Callable[[], Any]

    def __init__(self, values: list[Any] | tuple[Any, ...]) -> None:
        super().__init__(map(_wrapped, values))

    def __getattribute__(self, name: str) -> Any:
        return object.__getattribute__(self, name) if name.startswith("_") else _MISSING

    def __call__(self, *args: object, **kwargs: object) -> Any:
        """Call the method of the same name as this attribute."""
        return self._method() if hasattr(self, "_method") else _MISSING

    def __getitem__(self, index: Any) -> Any:
        try:
            return super().__getitem__(index)
        except (IndexError, TypeError):
            return _MISSING


@dataclass(frozen=True, slots=True)
class ProfileContext:
    """A context processor that adds the profile of whoever is in session to the context of each template.

    A page made with it counts as personal, whether or not the template uses the profile: a template may keep parts of
    itself in a cache. Give pages that are the same for everybody a `Jinja2Templates` without it.

    Args:
        attribute: the `attribute` of the `ProfileMiddleware`. Default `"profile"`.
        name: of the variable in templates. Default `"profile"`.
    """

    attribute: str = "profile"
    name: str = "profile"

    def __call__(self, request: HTTPConnection) -> dict[str, Any]:
        """What to add to the context."""
        lookup = lookup_of(request, self.attribute)
        if lookup is None:
            return {self.name: TemplateProfile(Profile(reason=Reason.NOT_LOOKED_UP))}
        lookup.mark_read(declared=True)
        return {self.name: TemplateProfile(lookup.profile)}


profile_context = ProfileContext()
"""For `Jinja2Templates(..., context_processors=[profile_context])`: the profile is `profile`."""
