"""The departments of the shop, and the headline for households that prefer them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Department:
    """A department of the shop.

    Args:
        slug: its name in URLs and in profiles.
        title: its name on the page.
        picture: the name of its picture.
        headline: what the shop says to somebody who likes it.
        line: a sentence below that.
    """

    slug: str
    title: str
    picture: str
    headline: str
    line: str


DEPARTMENTS = [
    Department(
        "produce", "Fruit & vegetables", "red-apple", "Picked this morning", "Crates are in, and the best are on top."
    ),
    Department(
        "dairy", "Dairy & eggs", "glass-of-milk", "Fresh from the dairy", "Milk, eggs and cheese, in before you are."
    ),
    Department(
        "bakery",
        "Bakery",
        "croissant",
        "Still warm",
        "The ovens went on at four, so breakfast is sorted.",
    ),
    Department(
        "meat", "Meat", "cut-of-meat", "From the butcher’s block", "Cut to order, for tonight or for the weekend."
    ),
    Department(
        "seafood",
        "Fish & seafood",
        "fish",
        "Today’s catch",
        "Off the ice and into the pan.",
    ),
    Department(
        "deli",
        "Deli",
        "sandwich",
        "Sliced the way you like it",
        "Tell us how thin; we know how much.",
    ),
    Department(
        "frozen", "Frozen", "ice-cream", "A freezer full of good evenings", "Dinner in ten minutes, dessert in none."
    ),
    Department(
        "pantry",
        "Pantry",
        "canned-food",
        "A well-stocked shelf",
        "Everything that turns up in every recipe.",
    ),
    Department(
        "breakfast", "Breakfast", "pancakes", "Good mornings start here", "Cereal, coffee and something to spread."
    ),
    Department(
        "snacks", "Snacks & sweets", "cookie", "Something for in between", "Salty, sweet, and gone before you know it."
    ),
    Department(
        "drinks",
        "Drinks",
        "tropical-drink",
        "The fridge is the heart of the house",
        "Stock up once, be set for the week.",
    ),
    Department(
        "household", "Household", "soap", "A house that runs itself", "The things you only notice when they are gone."
    ),
    Department(
        "health", "Health & beauty", "lotion-bottle", "Look after yourself", "Small things that make a morning."
    ),
    Department(
        "baby",
        "Baby",
        "baby-bottle",
        "For the smallest in the house",
        "What you need at three in the morning, bought by day.",
    ),
    Department(
        "pets",
        "Pets",
        "cat-face",
        "For the one who waits at the door",
        "Bowls filled, tails up.",
    ),
]
