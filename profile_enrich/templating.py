"""The profile in Jinja2 templates (extra `templates`)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from starlette.requests import HTTPConnection

from ._utils.frozen_types import Withheld
from ._utils.optional_import import needs_extra
from .profile import Profile, Reason
from .web.request_lookup import lookup_of

with needs_extra("jinja2", "profile_enrich.templating", "templates"):
    from jinja2 import ChainableUndefined

__all__ = ["ProfileContext", "TemplateProfile", "profile_context"]

_METHODS = frozenset({"items", "keys", "values"})

_TAKE_ONE = frozenset({"sync_do_first", "do_first", "do_last", "_min_or_max", "choice"})
_CONVERT = frozenset({"do_int", "do_float"})
_ENCODE = frozenset({"url_quote"})
_MODULES = frozenset({"jinja2.filters", "jinja2.utils", "random"})


def _called_by(functions: frozenset[str]) -> bool:
    """Whether the special method that asks this is called by one of these functions of Jinja2's filters.

    Of nothing, `first`, `last`, `min`, `max` and `random` make the environment's own undefined value, which may fail
    where it is used; and `int` and `float` have a default of their own, which `"%.2f" % value` has not.
    """
    frame = sys._getframe(2)
    if frame.f_code.co_name == "auto_aiter" and frame.f_back is not None:  # in an asynchronous environment
        frame = frame.f_back
    return frame.f_code.co_name in functions and frame.f_globals.get("__name__") in _MODULES


class _Items:
    """Mixed into what templates iterate over: of nothing, a filter that takes one item takes a missing one."""

    __slots__ = ()

    def __iter__(self) -> Iterator[Any]:
        items = super().__iter__()  # type: ignore[misc]  # mixed into containers
        if not super().__len__() and _called_by(_TAKE_ONE):  # type: ignore[misc]  # as above
            return iter((_MISSING,))
        return cast("Iterator[Any]", items)

    def __reversed__(self) -> Iterator[Any]:
        if not super().__len__() and _called_by(_TAKE_ONE):  # type: ignore[misc]  # as above
            return iter((_MISSING,))
        return reversed(list(super().__iter__()))  # type: ignore[misc]  # as above

    def __len__(self) -> int:
        size = cast(int, super().__len__())  # type: ignore[misc]  # as above
        return size or int(_called_by(_TAKE_ONE))


class _Missing(_Items, str):
    """The value of a missing attribute in a template. It is empty, and using it does not raise.

    It is an `Undefined`, so that Jinja2's `default` and `is defined` work, and an empty string for JSON encoders, which
    check the type. Comparisons with it are false. Arithmetic, attributes, items and calls return a missing value again.
    As a number it is 0, unless a filter has its own default.
    """

    __slots__ = ("_method",)
    __class__ = property(lambda self: ChainableUndefined)  # pyright: ignore[reportIncompatibleMethodOverride]  # `isinstance` takes it for an `Undefined`
    _method: Callable[[], Any]

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("_") or (name == "encode" and _called_by(_ENCODE)):
            return object.__getattribute__(self, name)
        return self

    def _itself(self, *args: object, **kwargs: object) -> Any:
        return self

    def __call__(self, *args: object, **kwargs: object) -> Any:
        """Call the string method that has the name of this attribute; without one, return a missing value."""
        return self._method() if hasattr(self, "_method") else self

    def _false(self, other: object) -> bool:
        return False

    def __int__(self) -> int:
        return 0

    def __float__(self) -> float:
        if _called_by(_CONVERT):
            raise ValueError("there is no value")
        return 0.0

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

    # Typed as `Any`, because they replace string methods, which return strings.
    __getitem__ = cast(Any, _itself)
    __lt__ = __le__ = __gt__ = __ge__ = __contains__ = _false
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = cast(Any, _itself)
    __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = __pow__ = __rpow__ = cast(Any, _itself)
    __mod__ = __rmod__ = __neg__ = __pos__ = __abs__ = __round__ = cast(Any, _itself)
    __ceil__ = __floor__ = __trunc__ = cast(Any, _itself)


_MISSING = _Missing()


def _wrapped(value: object) -> Any:
    """Wrap a value of the profile for templates."""
    if value is None:
        return _MISSING
    if isinstance(value, Mapping):
        return TemplateProfile(cast("Mapping[str, Any]", value))
    if isinstance(value, list | tuple):
        return _TemplateList(cast("list[Any]", value))
    return value


class TemplateProfile(_Items, Withheld, dict[str, Any]):
    """A profile wrapped for templates: every name is an attribute, and a missing attribute is empty.

    `{{ profile.first_name or "there" }}` renders the default for people without that attribute, and so do `{{
    profile.address.city or "your city" }}`, `{% if profile.visits > 3 %}`, `{{ profile.visits|int }}` and `{% for offer
    in profile.offers %}`, with any `undefined` class of the environment. `{% if profile %}` tests whether there is a
    profile, `{% if "tier" in profile %}` whether it has an attribute. Write `{{ profile["items"] }}` for an attribute
    named `items`, `keys` or `values`.

    Args:
        profile: the profile, or an object in it.
    """

    __slots__ = ("_found", "_method", "_text")
    _method: Callable[[], Any]

    def __init__(self, profile: Profile | Mapping[str, Any]) -> None:
        super().__init__(profile.attributes if isinstance(profile, Profile) else profile)
        self._found = bool(profile)
        self._text = repr(profile) if isinstance(profile, Profile) else super().__repr__()

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("_"):
            return object.__getattribute__(self, name)
        if name not in _METHODS:
            return self[name]
        method = object.__getattribute__(self, name)
        value = super().get(name)
        if isinstance(value, str | int | float):
            return method
        # Both the customer's attribute and the method of that name, which Jinja2's filters call (items, dictsort,
        # tojson).
        both = _Missing() if value is None else _wrapped(value)
        both._method = method
        return both

    def __call__(self, *args: object, **kwargs: object) -> Any:
        """Call the method that has the name of this attribute."""
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


class _TemplateList(_Items, Withheld, list[Any]):
    """A list of the profile wrapped for templates: an index out of range gives a missing value."""

    __slots__ = ("_method",)
    _method: Callable[[], Any]

    def __init__(self, values: list[Any] | tuple[Any, ...]) -> None:
        super().__init__(map(_wrapped, values))

    def __getattribute__(self, name: str) -> Any:
        return object.__getattribute__(self, name) if name.startswith("_") else _MISSING

    def __call__(self, *args: object, **kwargs: object) -> Any:
        """Call the method that has the name of this attribute."""
        return self._method() if hasattr(self, "_method") else _MISSING

    def __getitem__(self, index: Any) -> Any:
        try:
            return super().__getitem__(index)
        except (IndexError, TypeError):
            return _MISSING


@dataclass(frozen=True, slots=True)
class ProfileContext:
    """Context processor that adds the signed-in person's profile to the context of each template.

    Every page rendered with it counts as personal, even if its template does not use the profile, because templates can
    cache fragments. Render public pages with a `Jinja2Templates` that lacks this processor.

    Args:
        attribute: the `attribute` of the `ProfileMiddleware`. Default `"profile"`.
        name: the name of the variable in templates. Default `"profile"`.
    """

    attribute: str = "profile"
    name: str = "profile"

    def __call__(self, request: HTTPConnection) -> dict[str, Any]:
        """Return the variables to add to the context."""
        lookup = lookup_of(request, self.attribute)
        if lookup is None:
            return {self.name: TemplateProfile(Profile(reason=Reason.NOT_LOOKED_UP))}
        lookup.mark_read(declared=True)
        return {self.name: TemplateProfile(lookup.profile)}


profile_context = ProfileContext()
"""For `Jinja2Templates(..., context_processors=[profile_context])`: the profile is `profile`."""
