"""The commands of the console.

python -m examples.operator_console demo                    all that is needed, with invented customers
python -m examples.operator_console serve                   over the Profile API that the environment names
python -m examples.operator_console user add NAME --role support
python -m examples.operator_console user list | reset NAME | remove NAME
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import signal
import sys
import tempfile
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from types import FrameType

import uvicorn
from starlette.datastructures import Secret

from examples.demo import HOST, DemoError, Process

from .app import create_app
from .database import open_database
from .roles import load_roles
from .settings import HERE, Settings, data_directory
from .users import UserError, Users

CUSTOMERS = HERE / "data" / "customers.csv"
SEARCH_BY = ("email", "phone", "city", "tier")
OPERATORS = {"admin": "admin", "sam": "support", "tess": "trainee"}


def main(arguments: Sequence[str] | None = None, environment: Mapping[str, str] = os.environ) -> int:
    """Run a command. Return the exit code: 0, or 1 with the reason on stderr."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "demo":
            demo(options.port, options.api_port)
        elif options.command == "serve":
            serve(Settings.from_environment(environment), options.host, options.port)
        else:
            user(options, environment)
    except (ValueError, UserError, DemoError, OSError) as error:
        print(f"console: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m examples.operator_console", description="The operator's console.")
    commands = parser.add_subparsers(dest="command", required=True)
    trying = commands.add_parser("demo", help="the console over invented customers, and a mock ticket system")
    trying.add_argument("--port", default=8020, type=int, help="of the console (default: %(default)s)")
    trying.add_argument("--api-port", default=8788, type=int, help="of the Profile API (default: %(default)s)")
    serving = commands.add_parser("serve", help="the console over the Profile API that CONSOLE_… variables name")
    serving.add_argument("--host", default=HOST, help="the address to listen on (default: %(default)s)")
    serving.add_argument("--port", default=8020, type=int, help="default: %(default)s")
    users = commands.add_parser("user", help="who may sign in").add_subparsers(dest="action", required=True)
    adding = users.add_parser("add", help="make a user, and show a one-time password")
    adding.add_argument("name")
    adding.add_argument("--role", required=True, help="a role of the file that CONSOLE_ROLES names")
    users.add_parser("list", help="show all users")
    users.add_parser("reset", help="give a user a new one-time password").add_argument("name")
    users.add_parser("remove", help="remove a user").add_argument("name")
    return parser


def user(options: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """Create, list, change or remove users."""
    with contextlib.closing(open_database(data_directory(environment))) as database:
        users = Users(database)
        if options.action == "add":
            roles = load_roles(Path(environment.get("CONSOLE_ROLES") or HERE / "roles.toml"))
            if options.role not in roles:
                raise UserError(f"there is no role {options.role}; there are {', '.join(roles)}")
            _say_password(options.name, users.add(options.name, options.role))
        elif options.action == "reset":
            _say_password(options.name, users.reset(options.name))
        elif options.action == "remove":
            users.remove(options.name)
        else:
            for each in users.all():
                print(each.name, each.role, *(["(has a one-time password)"] if each.must_change else []))


def _say_password(name: str, password: str) -> None:
    print(f"The one-time password of {name}, shown this once: {password}", flush=True)


def serve(settings: Settings, host: str, port: int) -> None:
    """Serve the console until a signal. The first start creates the user `admin`."""
    with contextlib.closing(open_database(settings.data)) as database:
        users = Users(database)
        if not users.all():
            roles = load_roles(settings.roles)
            if "admin" not in roles:
                raise ValueError("there is no user yet, and no role admin to make one with; see `user add`")
            _say_password("admin", users.add("admin", "admin"))
    print(f"The console listens on http://{host}:{port}", flush=True)
    run(settings, host, port)


def run(settings: Settings, host: str, port: int) -> None:
    """Serve the console until SIGINT or SIGTERM."""
    # No access log: who looked at whom is in the audit log.
    proxies = settings.trusted_proxies
    uvicorn.run(
        create_app(settings), host=host, port=port, access_log=False, log_level="warning",
        # Without a proxy in front of it, `X-Forwarded-For` is what a stranger says of himself, also on this machine.
        proxy_headers=bool(proxies), forwarded_allow_ips=proxies or None,
    )  # fmt: skip


def demo(port: int, api_port: int) -> None:
    """Serve invented customers, the console and a mock ticket system until a signal."""
    key = secrets.token_urlsafe(32)
    with _interrupted_by_signals(), tempfile.TemporaryDirectory(prefix="operator-console-") as directory:
        settings = Settings(
            api_key=Secret(key), api_url=f"http://{HOST}:{api_port}/api", search_by=SEARCH_BY, data=Path(directory),
            tickets=True, example_id="C-1001",
        )  # fmt: skip
        with contextlib.closing(open_database(settings.data)) as database:
            users = Users(database)
            passwords = {name: users.add(name, role, must_change=False) for name, role in OPERATORS.items()}
        api = profile_api(api_port, key)
        try:
            api.start()
            api.wait_until_ready()
            print(welcome(port, passwords), flush=True)
            run(settings, HOST, port)
        finally:
            api.stop()


def profile_api(port: int, key: str) -> Process:
    """Return the embedded Profile API with the example's customers."""
    filters = [argument for name in SEARCH_BY for argument in ("--filter", name)]
    command = [
        sys.executable, "-m", "profile_enrich", "serve", "--data", str(CUSTOMERS), "--entity", "Customers",
        "--id", "customer_id", *filters, "--host", HOST, "--port", str(port),
    ]  # fmt: skip
    return Process("The Profile API", command, {"PROFILE_ENRICH_API_KEY": key}, f"http://{HOST}:{port}/healthz")


def welcome(port: int, passwords: Mapping[str, str]) -> str:
    """Return the text that is printed before it listens."""
    people = "\n".join(f"    {name:<6} {OPERATORS[name]:<8} {password}" for name, password in passwords.items())
    return f"""
  The console        http://{HOST}:{port}
  The ticket system  http://{HOST}:{port}/tickets   (a mock, for the extension)
  The extension     {HERE / "extension"}
                    Chrome: chrome://extensions, Developer mode, Load unpacked

  Sign in (made up for this run):
{people}

  Ctrl-C stops it; nothing is kept.
"""


@contextlib.contextmanager
def _interrupted_by_signals() -> Generator[None]:
    """Let SIGTERM and SIGHUP end the block as Ctrl-C does, so that everything is cleaned up."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    names = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(name, interrupt) for name in names]
    try:
        with contextlib.suppress(KeyboardInterrupt):
            yield
    finally:
        for name, handler in zip(names, before, strict=True):
            signal.signal(name, handler)


if __name__ == "__main__":
    sys.exit(main())
