"""Experiments: stable percentage splits."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from .._utils.validation import is_number
from ..errors import ConfigurationError
from ..profile import Profile, ProfileKey
from .audiences import Predicate

__all__ = ["Experiment"]


class Experiment:
    """Assign people to variants by a hash of their key, without state, equally in every process and release.

    The position of a key is the first 8 bytes of SHA-256 over the experiment's name, the key's type and its value, each
    followed by a zero byte, as a fraction of 2^64. Variants take their share of [0, 1) in the given order, so raising
    the first variant's share moves nobody out of it. Experiments with different names are independent.

    Args:
        name: the name, which salts the hash.
        variants: the share of each variant in percent, at most 100 in total. The rest gets no variant.

    Raises:
        ConfigurationError: the name is empty, or the shares are not percentages.
    """

    __slots__ = ("_variants", "name")

    def __init__(self, name: str, variants: Mapping[str, float]) -> None:
        if not isinstance(name, str) or not name:
            raise ConfigurationError("an experiment needs a name")
        if not variants or not all(is_number(share) and 0 <= share <= 100 for share in variants.values()):
            raise ConfigurationError("each variant of an experiment has a share in percent: {'blue': 50, 'green': 50}")
        if sum(variants.values()) > 100 + 1e-9:
            raise ConfigurationError("the variants of an experiment have more than 100 percent together")
        self.name = name
        self._variants = dict(variants)

    def variant_of(self, who: Profile | ProfileKey | str) -> str | None:
        """Return the variant of a person; `None` for the rest, and for a profile without a key (nobody signed in).

        Args:
            who: a profile, found or not; or a key.
        """
        key = who.key if isinstance(who, Profile) else ProfileKey.of(who)
        if key is None:
            return None
        place = self._place(key)
        for variant, share in self._variants.items():
            place -= share / 100
            if place < 0:
                return variant
        return None

    def on(self, variant: str) -> Predicate:
        """Return a predicate for an `Audience`: whether a profile gets this variant.

        Raises:
            ConfigurationError: the variant does not exist.
        """
        if variant not in self._variants:
            raise ConfigurationError(f"the experiment {self.name!r} has no variant {variant!r}")
        return lambda profile: self.variant_of(profile) == variant

    def _place(self, key: ProfileKey) -> float:
        text = f"{self.name}\0{key.type}\0{key.value}\0"
        return int.from_bytes(hashlib.sha256(text.encode(errors="surrogatepass")).digest()[:8], "big") / 2**64

    def __repr__(self) -> str:
        shares = ", ".join(f"{variant} {share:g} %" for variant, share in self._variants.items())
        return f"<Experiment {self.name}: {shares}>"
