"""The shop's pages: each handler reads the profile from the request and passes values to a template."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.templating import Jinja2Templates

from profile_enrich import Profile, ProfileClient, ProfileEnrichError, Reason, Status

from . import recommend, sessions
from .account import attribute_rows
from .catalogue import Catalogue, Product
from .control import ask_launcher
from .featured import FEATURED
from .security import local_path
from .strip import strip_of
from .used_attributes import UsedAttributes

PER_PAGE = 24
CHECK_SECONDS = 0.5
"""How long a sign-in waits for the check of the household, in seconds."""
ACT_SECONDS = 2.0
"""How long the refresh button and the button that starts the Profile API wait for a response, in seconds."""


class Pages:
    """The handlers of all pages."""

    def __init__(
        self, client: ProfileClient, catalogue: Catalogue, templates: Jinja2Templates, control: Path | None = None
    ) -> None:
        self.client = client
        self.control = control
        self.catalogue = catalogue
        self.templates = templates

    def routes(self) -> list[Route]:
        """Return the shop's routes."""
        return [
            Route("/", self.home, name="home"),
            Route("/department/{slug}", self.department, name="department"),
            Route("/product/{id}", self.product, name="product"),
            Route("/sign-in", self.sign_in_page, name="sign_in"),
            Route("/sign-in", self.sign_in, methods=["POST"]),
            Route("/sign-out", self.sign_out, methods=["POST"], name="sign_out"),
            Route("/account", self.account, name="account"),
            Route("/account/consent", self.consent, methods=["POST"], name="consent"),
            Route("/profile/drop", self.drop, methods=["POST"], name="drop"),
            Route("/profile/refresh", self.refresh, methods=["POST"], name="refresh"),
            Route("/profile-api", self.switch_api, methods=["POST"], name="switch_api"),
            Route("/ready", self.ready, name="ready"),
        ]

    # --- pages ------------------------------------------------------------------------------------------------------

    async def home(self, request: Request) -> Response:
        profile = UsedAttributes(request.state.profile)
        return await self._page(request, "home.html", profile, home=recommend.home(profile, self.catalogue))

    async def department(self, request: Request) -> Response:
        department = self.catalogue.departments.get(request.path_params["slug"])
        if department is None:
            raise HTTPException(404)
        profile = UsedAttributes(request.state.profile)
        shelves = self.catalogue.shelves(department.slug)
        shelf = request.query_params.get("shelf", "")
        products = shelves.get(shelf) or self.catalogue.in_department(department.slug)
        products = _varied(products)
        suits = recommend.Reasons(profile, self.catalogue)
        reasons = {product.id: suits.of(product) for product in products}
        products.sort(key=lambda product: recommend.RANKS.index(reasons[product.id].kind))
        pages = max(1, -(-len(products) // PER_PAGE))
        page = min(max(1, _whole_number(request.query_params.get("page", ""), 1)), pages)
        picks = [
            recommend.Pick(product, reasons[product.id].text)
            for product in products[(page - 1) * PER_PAGE : page * PER_PAGE]
        ]
        return await self._page(
            request, "department.html", profile, department=department, shelves=shelves,
            shelf=shelf if shelf in shelves else "", picks=picks, page=page, pages=pages, total=len(products),
            share=recommend.share_of(department, profile),
            offers=recommend.offers(profile, self.catalogue, department.slug)[:2] if profile else [],
        )  # fmt: skip

    async def product(self, request: Request) -> Response:
        product = self.catalogue.products.get(request.path_params["id"])
        if product is None:
            raise HTTPException(404)
        profile = UsedAttributes(request.state.profile)
        title, others = "Often in the same basket", [self.catalogue.products[id] for id in product.goes_with]
        if not others:
            shelf = self.catalogue.shelves(product.department)[product.shelf]
            title, others = "More from this shelf", _varied([each for each in shelf if each != product])
        suits = recommend.Reasons(profile, self.catalogue)
        picks = [recommend.Pick(other, suits.of(other).text) for other in others]
        department = self.catalogue.departments[product.department]
        offers = recommend.offers(profile, self.catalogue) if profile else []
        row = recommend.Row(title, "", sorted(picks, key=lambda pick: not pick.why)[: recommend.ROW])
        return await self._page(
            request, "product.html", profile, product=product, department=department,
            why=suits.of(product).text, row=row,
            share=recommend.share_of(department, profile),
            offers=[offer for offer in offers if product.id in offer.coupon.products],
        )  # fmt: skip

    async def account(self, request: Request) -> Response:
        if sessions.signed_in(request) is None:
            return RedirectResponse("/sign-in", status_code=303)
        profile = UsedAttributes(request.state.profile)
        raw = json.dumps(request.state.profile.as_dict(), indent=2, ensure_ascii=False)
        return await self._page(request, "account.html", profile, rows=attribute_rows(profile, self.catalogue), raw=raw)

    async def ready(self, request: Request) -> Response:
        """Respond to the readiness check of the launcher."""
        return PlainTextResponse("ready\n")

    # --- signing in and out -----------------------------------------------------------------------------------------

    async def sign_in_page(self, request: Request) -> Response:
        return await self._page(request, "sign_in.html", featured=FEATURED, typed="", problem="")

    async def sign_in(self, request: Request) -> Response:
        async with request.form(max_fields=10, max_files=0) as form:
            typed = str(form.get("household", "")).strip()
        problem = await self._problem_with(typed)
        if problem:
            page = await self._page(request, "sign_in.html", featured=FEATURED, typed=typed[:20], problem=problem)
            page.status_code = 422
            return page
        sessions.sign_in(request, str(int(typed)))
        return RedirectResponse("/", status_code=303)

    async def _problem_with(self, typed: str) -> str:
        """Return what is wrong with a household number, as a sentence; empty if it may sign in."""
        if not typed:
            return "Please choose a household, or type its number."
        if not re.fullmatch("[0-9]{1,6}", typed):
            return "A household number is made of digits only, such as 1228."
        profile = await self.client.lookup(str(int(typed)), budget=CHECK_SECONDS)
        if profile.reason in (Reason.NOT_FOUND, Reason.EXCLUDED):
            return f"We know no household {int(typed)}. Most numbers from 1 to 2500 are taken; try another."
        # While the Profile API is down, any number may sign in: the pages also work without a profile.
        return ""

    async def sign_out(self, request: Request) -> Response:
        sessions.sign_out(request)
        return RedirectResponse("/", status_code=303)

    async def consent(self, request: Request) -> Response:
        async with request.form(max_fields=10, max_files=0) as form:
            given = form.get("consent") == "yes"
        household = sessions.signed_in(request)
        if household is not None:
            sessions.set_consent(request, given)
            if not given:
                self.client.invalidate(household)  # what was looked up with consent is not kept without
        return RedirectResponse("/account", status_code=303)

    # --- the buttons of the strip -----------------------------------------------------------------------------------

    async def drop(self, request: Request) -> Response:
        household = sessions.signed_in(request)
        if household is not None and sessions.consents(request):
            self.client.invalidate(household)
            sessions.leave_notice(request, "Dropped from the cache: this page had to ask the Profile API again.")
        return await self._back(request)

    async def refresh(self, request: Request) -> Response:
        household = sessions.signed_in(request)
        if household is not None and sessions.consents(request):
            notice = "Fetched anew from the Profile API."
            try:
                await self.client.refresh(household, budget=ACT_SECONDS)
            except ProfileEnrichError:
                notice = "The Profile API does not answer now; what the cache holds stays as it is."
            sessions.leave_notice(request, notice)
        return await self._back(request)

    async def switch_api(self, request: Request) -> Response:
        """Stop or start the Profile API, through the launcher of the demo."""
        if self.control is None:
            raise HTTPException(404)
        async with request.form(max_fields=10, max_files=0) as form:
            runs = await ask_launcher(self.control, "start" if form.get("api") == "start" else "stop")
        if runs:
            await self._wait_for_api(request)
        notice = {
            True: "The Profile API is running.",
            False: "The Profile API is stopped. Pages still appear: first with cached profiles, then without.",
            None: "The launcher of the demo does not answer.",
        }
        sessions.leave_notice(request, notice[runs])
        return await self._back(request)

    async def _wait_for_api(self, request: Request) -> None:
        """Refresh the visitor's profile as soon as the circuit breaker permits it, so that the next page has it."""
        household = sessions.signed_in(request)
        if household is None or not sessions.consents(request):
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ACT_SECONDS):
                while True:
                    try:
                        await self.client.refresh(household)
                        return
                    except ProfileEnrichError:
                        await asyncio.sleep(0.1)

    async def _back(self, request: Request) -> Response:
        async with request.form(max_fields=10, max_files=0) as form:
            target = local_path(str(form.get("next", "/")))
        return RedirectResponse(target, status_code=303)

    # --- what all pages share ---------------------------------------------------------------------------------------

    async def not_found(self, request: Request, error: Exception) -> Response:
        picks = [recommend.Pick(product) for product in self.catalogue.bestsellers[:6]]
        page = await self._page(request, "not_found.html", picks=picks)
        page.status_code = 404
        return page

    async def _page(
        self, request: Request, template: str, used: UsedAttributes | None = None, **values: Any
    ) -> Response:
        profile: Profile = request.state.profile
        used = UsedAttributes(profile) if used is None else used
        consents = sessions.consents(request)
        household = sessions.signed_in(request)
        shared = {
            "departments": self.catalogue.departments,
            "household": household,
            "consents": consents,
            "profile": used,
            "resting": household is not None and consents and profile.status in (Status.TIMEOUT, Status.ERROR),
            "notice": sessions.take_notice(request),
            "strip": strip_of(
                request, self.client, None if self.control is None else await ask_launcher(self.control, "status")
            ),
            "here": request.url.path + (f"?{request.url.query}" if request.url.query else ""),
        }
        return self.templates.TemplateResponse(request, template, {**shared, **values})


def _varied(products: list[Product]) -> list[Product]:
    """Return one product of each name, then the second of each, so that a page is not forty candy bars."""
    seen: Counter[str] = Counter()
    order: dict[str, int] = {}
    for product in products:
        order[product.id] = seen[product.name]
        seen[product.name] += 1
    return sorted(products, key=lambda product: order[product.id])


def _whole_number(text: str, default: int) -> int:
    return int(text) if re.fullmatch("[0-9]{1,4}", text) else default
