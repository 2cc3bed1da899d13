"""Settings of all tests: long ones run under `make test-long`, the longest files start first, and the examples
of property tests are the same in each run."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

try:
    import hypothesis
    from hypothesis.internal.conjecture import providers
except ModuleNotFoundError:  # not installed in the environments of the engines and stacks
    hypothesis = None  # type: ignore[assignment]
else:
    REPEATABLE = hypothesis.settings.get_profile("ci")
    """The seed follows from the test; and no limit of time, which a busy machine would exceed."""
    hypothesis.settings.register_profile("random", REPEATABLE, derandomize=False)
    hypothesis.settings.load_profile("ci")

# Two processes share the files. A file of a minute that starts last would leave one of them idle.
LONGEST = (
    "test_accessibility.py",
    "test_docs_followed.py",
    "test_storefront.py",
    "test_page.py",
    "test_filters.py",
    "test_operator_extension.py",
    "test_demo.py",
    "test_deploy.py",
    "test_gunicorn.py",
    "test_connection_limits.py",
    "test_kill.py",
    "test_soak.py",
    "test_benchmarks.py",
)


# Processes that tests start inherit ignored signals: of `nohup make test`, and of `make test &` in a script.
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


class _Process(subprocess.Popen[Any]):
    """A process that does not outlive a failed test: leaving its `with` block would wait for it without a limit."""

    def __exit__(self, kind: Any, value: Any, traceback: Any) -> None:
        if kind is not None:
            self.kill()
        super().__exit__(kind, value, traceback)


setattr(subprocess, "Popen", _Process)  # noqa: B010  # it is typed as a class


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: takes a second or more; `make test` leaves it to `make test-long`")
    if hypothesis is not None and hypothesis.settings.default is REPEATABLE:
        # Hypothesis draws constants from the modules of this project that are imported at that moment, so that examples
        # would depend on the tests that the process has run before.
        setattr(providers, "is_local_module_file", lambda path: False)  # noqa: B010  # it is not typed


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Exclude tests and modules, which live until the end, from garbage collection."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not os.environ.get("PROFILE_ENRICH_LONG"):
        skip = pytest.mark.skip(reason="takes a second or more; run it with: make test-long")
        for item in items:
            if "long" in item.keywords:
                item.add_marker(skip)
    factor = float(os.environ.get("PROFILE_ENRICH_EXAMPLES", "1"))
    if factor != 1:
        for item in items:
            _draw(item, factor)
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(Path(item.path).name, len(order)))


def _draw(item: Any, factor: float) -> None:
    """Multiply the number of examples of a property test."""
    test = getattr(item.obj, "__func__", item.obj)
    if hasattr(test, "_hypothesis_internal_use_settings"):
        holder, name = test, "_hypothesis_internal_use_settings"
    elif hypothesis is not None and hypothesis.is_hypothesis_test(test):  # a state machine
        holder, name = item.cls, "settings"
    else:
        return
    settings = getattr(holder, name)
    setattr(holder, name, hypothesis.settings(settings, max_examples=max(1, round(factor * settings.max_examples))))
