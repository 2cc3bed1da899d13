"""The households on the sign-in page: a few different ones, described by their own profiles."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Featured:
    """A household that one can sign in as.

    Args:
        number: its number.
        title: who they are, from the profile.
        line: what they buy, from the profile.
        picture: the name of a picture.
        department: the slug of their first favourite department, which gives the card its color.
    """

    number: str
    title: str
    line: str
    picture: str
    department: str


FEATURED = [
    Featured(
        "2280", "A family with a baby", "Infant formula, bananas and chocolate milk, on Fridays", "baby-bottle", "baby"
    ),
    Featured(
        "1740",
        "Single, under 25",
        "Salad, fish and fruit: here 320 times in a year",
        "green-salad",
        "produce",
    ),
    Featured(
        "2260",
        "Around 50, with a dog",
        "Dog food, magazines and soup, on Monday evenings",
        "dog-face",
        "pets",
    ),
    Featured(
        "1062",
        "A couple, 65 and over",
        "Ice cream, frozen pizza and burritos, much of it own brand",
        "ice-cream",
        "frozen",
    ),
    Featured(
        "67",
        "A house full of children",
        "Cheese, crackers and bananas, and coupons for all of it",
        "cheese-wedge",
        "snacks",
    ),
    Featured(
        "412", "65 and over, with a child", "Salad bar, donuts and hot sides, on Saturday evenings", "doughnut", "deli"
    ),
]
