"""The expected state: the people, their records at the vendor with the time of each change, and their overlays.

Each result of a lookup is checked here. Each person's attributes contain their owner, a canary and a sealed version
number, which identify the person and the age of the data.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any

from profile_enrich import Profile, ProfileClient

from .checker import Checker
from .settings import Settings

__all__ = ["Expectation", "ExpectedState", "Person", "Sight"]

MAY_HOLD = {
    "id", "owner", "canary", "version", "seal", "city", "home", "interests", "padding", "basket",
}  # fmt: skip


@dataclass(slots=True)
class Person:
    """One customer, as stored at the vendor."""

    id: str
    version: int = 0
    present: bool = False
    absent_until: float = math.inf
    """Until when the vendor did not have them, on the monotonic clock."""
    ceased: dict[int, float] | None = None
    """When each former version was replaced."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """What must hold of a lookup that starts now."""

    key: str
    at: float
    floor: int
    """Versions below were invalidated."""
    floor_at: float
    basket: tuple[int, float] | None
    """The serial of the overlay that must show, and until when."""
    no_basket_below: int
    epoch: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Sight:
    """An observation of a profile, and its time."""

    attributes: dict[str, Any]
    status: str
    reason: str | None
    age: float | None
    at: float

    @classmethod
    def of(cls, profile: Profile) -> Sight:
        """Read one consistent state: until its lookup is awaited, a profile may adopt another thread's result."""
        while True:
            facts, at = profile._facts, time.monotonic()
            attributes, status, reason, age = profile.as_dict(), profile.status, profile.reason, profile.age
            if profile._facts is facts:
                return cls(attributes, status.value, None if reason is None else reason.value, age, at)


class ExpectedState:
    """The vendor's data and the expected results. All changes to either are made here, under a lock.

    Lookups do not, so they race with all of it.
    """

    def __init__(self, settings: Settings, checker: Checker) -> None:
        self.profiles: MutableMapping[str, Any] = {}
        """What the vendor serves."""
        self._settings = settings
        self._checker = checker
        self._mark = f"{settings.seed & 0xFFFF:04x}"
        self._marked = re.compile(rf"(?:us|vi)-{self._mark}-\d+|cn-[0-9a-f]{{16}}")
        self._rng = random.Random(settings.seed)
        self._lock = threading.RLock()
        self._visitors = 0
        self._serial = 0
        self._epoch = 0
        self._epochs: dict[str, int] = {}
        self._floors: dict[str, tuple[int, float]] = {}
        self._uncertain: Counter[str] = Counter()
        """Keys that are being invalidated at this moment by somebody else, whose overlays may or may not survive it."""
        self._baskets: dict[str, tuple[int, float]] = {}
        self._baskets_gone: dict[str, int] = {}
        self._serial_gone = 0
        self._adopted: dict[str, set[str]] = {}
        self.people = [Person(f"us-{self._mark}-{number}", ceased={}) for number in range(settings.people)]
        self._by_id = {person.id: person for person in self.people}
        for number, person in enumerate(self.people):
            if number % 10 != 9:  # every tenth signs in, and is unknown to the vendor
                self.change(person)

    # --- who ----------------------------------------------------------------------------------------------------------

    def somebody(self, rng: random.Random) -> str:
        """Return a person's id; some are far more frequent than others."""
        return self.people[int(len(self.people) * rng.random() ** 3)].id

    def visitor(self) -> str:
        """Return the id of an unknown visitor, new each time."""
        with self._lock:
            self._visitors += 1
            return f"vi-{self._mark}-{self._visitors}"

    def canary(self, key: str) -> str:
        return "cn-" + self._hash("canary", key)

    def tag_of(self, key: str) -> str | None:
        """Half of the people can be invalidated by a tag."""
        number = int(key.rpartition("-")[2])
        return f"group-{number % 20}" if number % 2 else None

    def planted(self, text: str) -> set[str]:
        """Return the personal data in a text."""
        return set(self._marked.findall(text))

    # --- what changes -------------------------------------------------------------------------------------------------

    def change(self, person: Person) -> None:
        """Change or delete a person at the vendor."""
        with self._lock:
            ceased = person.ceased
            assert ceased is not None
            if person.present and self._rng.random() < 0.1:
                del self.profiles[person.id]
                person.present, person.absent_until = False, math.inf
                ceased[person.version] = time.monotonic()
                return
            self.profiles[person.id] = self._attributes(person.id, person.version + 1)
            # From here on no new response holds the previous version.
            now = time.monotonic()
            ceased[person.version] = now
            person.version += 1
            if not person.present:
                person.present, person.absent_until = True, now

    def invalidate(self, client: ProfileClient, keys: Iterable[str] = (), tag: str | None = None) -> None:
        gone = list(keys)
        hit = [person.id for person in self.people if tag is not None and self.tag_of(person.id) == tag]
        with self._lock, self.invalidating(gone, hit):
            client.invalidate(*gone, tag=tag)

    @contextlib.contextmanager
    def invalidating(self, keys: Iterable[str], tagged: Iterable[str] = ()) -> Generator[None]:
        """Keys are being invalidated, with their overlays, until the block ends; tagged ones lose the profile alone."""
        gone = list(keys)
        with self._lock:
            before = [(key, self._version(key), time.monotonic()) for key in (*gone, *tagged)]
            serial = self._serial
            self._uncertain.update(gone)
            for key in gone:
                self._forget_basket(key)
            epochs = {key: self._epochs[key] for key in gone}
        yield
        with self._lock:
            self._uncertain.subtract(gone)
            for key, version, at in before:
                self._raise_floor(key, version, at)
            for key in gone:
                # Unless meanwhile an older overlay of a visitor was moved here, after this invalidation or before it.
                if self._epochs.get(key) == epochs[key]:
                    self._baskets_gone[key] = max(serial, self._baskets_gone.get(key, 0))

    def clear(self, client: ProfileClient) -> None:
        with self._lock:
            before = [(person.id, person.version, time.monotonic()) for person in self.people]
            self._epoch += 1
            self._baskets.clear()
            client.clear()
            for key, version, at in before:
                self._raise_floor(key, version, at)
            self._serial_gone = self._serial

    def overlay(self, client: ProfileClient, key: str) -> None:
        """A purchase that the vendor does not have yet."""
        with self._lock:
            self._serial += 1
            ttl = self._settings.overlay_ttl
            until = time.monotonic() + ttl
            basket = {"owner": key, "canary": self.canary(key), "serial": self._serial, "until": until}
            client.overlay(key, {"basket": basket}, ttl=ttl)
            if not self._uncertain[key]:
                self._baskets[key] = (self._serial, until)

    def rekey(self, client: ProfileClient, visitor: str, person: str) -> None:
        """A visitor signs in."""
        with self._lock:
            at, version = time.monotonic(), self._version(person)
            self._adopted.setdefault(visitor, set()).add(person)
            moved = self._baskets.get(visitor)
            self._forget_basket(visitor)
            self._forget_basket(person)
            client.rekey(visitor, person)
            self._raise_floor(person, version, at)
            self._baskets_gone[visitor] = self._serial
            self._baskets_gone[person] = self._serial if moved is None else moved[0] - 1
            if moved is not None and not self._uncertain[person]:
                self._baskets[person] = moved

    def new_chapter(self) -> None:
        """Start a new client, with an empty cache: reset the state of the previous client."""
        with self._lock:
            for book in (self._epochs, self._floors, self._baskets, self._baskets_gone, self._adopted, self._uncertain):
                book.clear()
            long_ago = time.monotonic() - 2 * self._settings.oldest - 10
            for person in self.people:
                person.ceased = {version: at for version, at in (person.ceased or {}).items() if at > long_ago}

    # --- what must hold -----------------------------------------------------------------------------------------------

    def expect(self, key: str) -> Expectation:
        with self._lock:
            floor, at = self._floors.get(key, (0, -math.inf))
            return Expectation(
                key,
                time.monotonic(),
                floor,
                at,
                self._baskets.get(key),
                max(self._baskets_gone.get(key, 0), self._serial_gone),
                (self._epoch, self._epochs.get(key, 0)),
            )

    def judge_text(self, text: str, key: str | None, where: str) -> None:
        """Check isolation: a response contains no id and no canary of another person."""
        found = self._marked.findall(text)
        if not found:
            return
        allowed = set() if key is None else {key, self.canary(key)}
        for value in set(found) - allowed:
            with self._lock:
                before = [visitor for visitor, people in self._adopted.items() if key in people]
            mine = any(value in (visitor, self.canary(visitor)) for visitor in before)
            self._checker.check(mine, "isolation: a response holds another person's data", where)

    def judge(self, sight: Sight, expected: Expectation, where: str) -> None:
        """Check whether this person may see this profile at this time."""
        check, seen = self._checker.check, sight.attributes
        where = f"{where}, status {sight.status}, reason {sight.reason}"
        check(seen.keys() <= MAY_HOLD, "isolation: attributes that nobody has", where)
        if "owner" in seen:
            self._judge_record(sight, expected, where)
        else:
            check(seen.keys() <= {"basket"}, "a profile lacks its owner", where)
        if sight.reason == "not_found":
            self._judge_absence(sight, expected, where)
        if "basket" in seen:
            self._judge_basket(seen["basket"], sight, expected, where)
        elif expected.basket is not None and sight.reason in (None, "not_found"):
            until = expected.basket[1]
            still = sight.at < until and self._same(expected)
            check(not still, "an overlay does not show (read your writes)", where)

    def _judge_record(self, sight: Sight, expected: Expectation, where: str) -> None:
        check, key, seen = self._checker.check, expected.key, sight.attributes
        check(seen["owner"] == key and seen["canary"] == self.canary(key), "isolation: another owner", where)
        # Amperity's attributes are text.
        version = int(seen["version"])
        home = json.loads(seen["home"]) if isinstance(seen["home"], str) else seen["home"]
        check(seen["seal"] == self._hash(key, version) and home["city"] == seen["city"],
              "a profile is a mix of two, or was changed by a reader", where)  # fmt: skip
        check(version >= expected.floor, "L6: what was invalidated came back",
              f"{where}, version {version} after {expected.floor}")  # fmt: skip
        person = self._by_id.get(key)
        with self._lock:
            ceased = None if person is None or person.ceased is None else person.ceased.get(version, -math.inf)
            if person is not None and person.present and version == person.version:
                ceased = math.inf
        check(ceased is not None, "isolation: a profile of nobody", where)
        if ceased is not None:
            late = sight.at - ceased
            self._checker.staleness(late)
            check(late <= self._settings.oldest, "staleness: older than ttl + max_stale allows",
                  f"{where}, replaced at the vendor {late:.2f} s ago")  # fmt: skip
        if sight.age is not None:
            check(sight.age <= self._settings.oldest_age, "staleness: the profile's own age is over the bound",
                  f"{where}, {sight.age:.2f} s")  # fmt: skip

    def _judge_absence(self, sight: Sight, expected: Expectation, where: str) -> None:
        person = self._by_id.get(expected.key)
        if person is None:
            return
        remembered = max(sight.at - self._settings.oldest_negative, expected.floor_at)
        with self._lock:
            was_absent = person.absent_until >= remembered
        self._checker.check(was_absent, "a person that the vendor has is said not to exist", where)

    def _judge_basket(self, basket: dict[str, Any], sight: Sight, expected: Expectation, where: str) -> None:
        check, key = self._checker.check, expected.key
        with self._lock:
            mine = basket["owner"] == key or key in self._adopted.get(basket["owner"], ())
        check(mine and basket["canary"] == self.canary(basket["owner"]), "isolation: another person's overlay", where)
        check(sight.at <= basket["until"] + self._settings.slack, "an overlay outlives its ttl", where)
        # A visitor who signs in meanwhile brings an overlay that is older than what was invalidated.
        if self._same(expected):
            check(basket["serial"] > expected.no_basket_below, "an overlay came back after it was invalidated", where)
            wanted = 0 if expected.basket is None else expected.basket[0]
            check(basket["serial"] >= wanted, "an older overlay shows", where)

    def _same(self, expected: Expectation) -> bool:
        """Return whether no overlay of the key was dropped or moved since."""
        with self._lock:
            return expected.epoch == (self._epoch, self._epochs.get(expected.key, 0))

    # --- inside -------------------------------------------------------------------------------------------------------

    def _forget_basket(self, key: str) -> None:
        self._epochs[key] = self._epochs.get(key, 0) + 1
        self._baskets.pop(key, None)

    def _raise_floor(self, key: str, version: int, at: float) -> None:
        older = self._floors.get(key, (0, -math.inf))
        self._floors[key] = (max(version, older[0]), max(at, older[1]))

    def _version(self, key: str) -> int:
        person = self._by_id.get(key)
        return 0 if person is None else person.version

    def _attributes(self, key: str, version: int) -> dict[str, object]:
        city = f"city {self._rng.randrange(10**6)}"
        return {
            "owner": key,
            "canary": self.canary(key),
            "version": version,
            "seal": self._hash(key, version),
            "city": city,
            "home": {"city": city, "lines": ["1 High Street", {"floor": version % 7}]},
            "interests": [f"interest {self._rng.randrange(100)}" for _ in range(self._rng.randrange(8))],
            "padding": "x" * self._rng.choice((0, 50, 400, 3000)),
        }

    def _hash(self, *parts: object) -> str:
        text = "|".join(map(str, (self._settings.seed, *parts)))
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
