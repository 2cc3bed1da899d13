"""Identity from a signed cookie (extra `session`)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, cast

from starlette.datastructures import Secret
from starlette.requests import HTTPConnection

from .._utils.log_once import LogOnce
from .._utils.optional_import import needs_extra
from .._utils.validation import check_int, check_text
from ..errors import ConfigurationError
from .argument_checks import check_cookie_name, check_key_type
from .identity_functions import Identity, key_from
from .request_values import one_cookie

__all__ = ["SignedCookie", "from_signed_cookie"]

logger = logging.getLogger("profile_enrich")


class SignedCookie:
    """An identity function that reads a signed cookie, and signs its value; see `from_signed_cookie`.

    Args:
        name: the cookie's name.
        signer: an `itsdangerous.TimestampSigner`.
        bad_signature: its exception for a wrong signature.
        expired: its exception for an expired signature.
        max_age: the lifetime of a signature, in seconds; `None` for unlimited.
        type: the type of the profile key.
    """

    __slots__ = ("_bad_signature", "_expired", "_max_age", "_name", "_once", "_signer", "_type", "vary")

    def __init__(
        self,
        name: str,
        signer: Any,
        *,
        bad_signature: type[Exception],
        expired: type[Exception],
        max_age: int | None,
        type: str,
    ) -> None:
        self.vary = ("Cookie",)
        self._name = name
        self._type = type
        self._max_age = max_age
        self._signer = signer
        self._bad_signature = bad_signature
        self._expired = expired
        self._once = LogOnce()

    def sign(self, value: str) -> str:
        """Sign a key for `response.set_cookie(name, ...)`.

        Args:
            value: the key, e.g. the customer's id.
        """
        signed: bytes = self._signer.sign(value)
        return signed.decode()

    def __call__(self, connection: HTTPConnection) -> Identity:
        """Return the key in a request's cookie."""
        cookie = one_cookie(connection, self._name)
        if not cookie:
            return None
        try:
            value: bytes = self._signer.unsign(cookie, max_age=self._max_age)
        except self._bad_signature as error:
            # Forged or expired: nobody. Log it for an application that signs in another way.
            if not isinstance(error, self._expired) and self._once.first("signature"):
                logger.warning(
                    "a cookie %s has a signature that from_signed_cookie does not accept, so nobody is signed in: it "
                    "is forged, or was signed with another secret or salt than here",
                    self._name,
                )
            return None
        return key_from(value.decode(errors="strict"), self._type)

    def __repr__(self) -> str:
        return f"from_signed_cookie({self._name!r}, ...)"


def from_signed_cookie(
    name: str,
    secret_key: str | Secret | Sequence[str | Secret],
    *,
    type: str = "id",
    max_age: int | None = 14 * 24 * 3600,
    salt: str | None = None,
) -> SignedCookie:
    """Return an identity function that reads the key from a signed cookie.

    ```python
    visitor = from_signed_cookie("visitor", secret)            # identify=visitor
    response.set_cookie("visitor", visitor.sign("u1"), httponly=True, secure=True)
    ```

    A cookie with a wrong or expired signature, or a repeated cookie, means nobody.

    Args:
        name: the cookie's name.
        secret_key: the signing key; or several for rotation, of which the last one signs and all are accepted.
        type: the type of the profile key. Default `"id"`.
        max_age: the lifetime of a signature, in seconds; `None` for unlimited. Default 14 days.
        salt: the signer's salt. The default contains the cookie's name, so that values of other cookies are rejected.
            For cookies signed with a plain `itsdangerous.TimestampSigner(secret_key)`, pass
            `salt="itsdangerous.Signer"`.

    Returns:
        The identity function; its `sign` method makes the cookie's value.

    Raises:
        MissingExtraError: itsdangerous is not installed (extra `session`).
        ConfigurationError: the name, a secret or the salt is empty or not text.
    """
    check_cookie_name(name)
    check_key_type(type)
    if max_age is not None:
        check_int("max_age", max_age)
    if salt is not None:
        check_text("salt", salt)
    secrets = secret_texts("secret_key", secret_key)
    with needs_extra("itsdangerous", "from_signed_cookie", "session"):
        from itsdangerous import BadSignature, SignatureExpired, TimestampSigner
    signer = TimestampSigner(secrets, salt=salt or f"profile_enrich.signed_cookie.{name}")
    return SignedCookie(name, signer, bad_signature=BadSignature, expired=SignatureExpired, max_age=max_age, type=type)


def secret_texts(argument: str, value: object) -> list[str]:
    """Return one secret or several as text.

    Raises:
        ConfigurationError: a secret is empty or not text, such as the `None` of an unset environment variable.
    """
    given: Sequence[object] = (value,)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | Secret):
        given = cast("Sequence[object]", value)
    if not given:
        raise ConfigurationError(f"{argument} must not be empty")
    texts: list[str] = []
    for secret in given:
        text = str(secret) if isinstance(secret, Secret) else secret
        if not isinstance(text, str) or not text.strip() or text == "None":
            found = type(secret).__name__ if not isinstance(text, str) else "one that is empty or says 'None'"
            raise ConfigurationError(f"{argument} must be non-empty text, or a list of such, not {found}")
        texts.append(text)
    return texts
