"""The files of `examples/deploy` are run: the units, the Procfile, and a rolling restart behind nginx under load."""

from __future__ import annotations

import asyncio
import configparser
import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from examples import demo

from .shop import free_port

DEPLOY = demo.ROOT / "examples" / "deploy"
KEY = "a-key-of-this-test-only"
BIN = Path(sys.executable).parent


def text_of(name: str) -> str:
    return (DEPLOY / name).read_text(encoding="utf-8")


def command_of(unit: str) -> str:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]  # systemd's names have capitals
    parser.read_string(text_of(unit))
    return parser["Service"]["ExecStart"].replace("/opt/profile-enrich/bin/", f"{BIN}/")


def wait_for(url: str, process: subprocess.Popen[bytes] | None = None, seconds: float = 60.0) -> httpx.Response:
    end = time.monotonic() + seconds
    while True:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(url, timeout=10)
        assert process is None or process.poll() is None, "it ended"
        assert time.monotonic() < end, f"{url} never answered"
        time.sleep(0.05)


@contextlib.contextmanager
def running(command: str | list[str], **environment: str) -> Generator[subprocess.Popen[bytes]]:
    words = shlex.split(command) if isinstance(command, str) else command
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PROFILE_ENRICH_")}
    process = subprocess.Popen(
        words,
        cwd=demo.ROOT,
        env={**kept, "PATH": f"{BIN}{os.pathsep}{kept['PATH']}", **environment},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        assert process.wait(30) in (0, -signal.SIGTERM, 128 + signal.SIGTERM)


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here: apt-get install systemd"
)
@pytest.mark.parametrize("unit", ["profile-api.service", "shop@.service"])
def test_systemd_accepts_the_units(unit: str, tmp_path: Path) -> None:
    copy = tmp_path / unit
    copy.write_text(text_of(unit).replace("/opt/profile-enrich/bin/", f"{BIN}/"), encoding="utf-8")
    other = next(name for name in ("profile-api.service", "shop@.service") if name != unit)
    (tmp_path / other).write_text(text_of(other).replace("/opt/profile-enrich/bin/", f"{BIN}/"), encoding="utf-8")
    done = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, timeout=60)
    assert done.stdout + done.stderr == ""
    assert done.returncode == 0


def scraped(port: int, folder: Path) -> set[str]:
    """Scrape the target as `prometheus.yml` does, and return the names of the metrics."""
    (job,) = yaml.safe_load(text_of("prometheus.yml"))["scrape_configs"]
    (folder / "profile-api.key").write_text(f"{KEY}\n", encoding="utf-8")
    key = (folder / Path(job["authorization"]["credentials_file"]).name).read_text(encoding="utf-8").strip()
    (target,) = job["static_configs"][0]["targets"]
    address = f"http://{target.replace('8787', str(port))}{job.get('metrics_path', '/metrics')}"
    answer = httpx.get(address, headers={"authorization": f"{job['authorization'].get('type', 'Bearer')} {key}"})
    assert answer.status_code == 200
    return {family.name for family in text_string_to_metric_families(answer.text)}


@pytest.mark.long
def test_the_command_of_the_unit_serves_reads_its_file_again_and_stops(tmp_path: Path) -> None:
    port = free_port()
    config = tmp_path / "server.toml"
    config.write_text(
        text_of("server.toml")
        .replace("/var/lib/profile-api", str(tmp_path))
        .replace("/srv/exports", str(demo.HOUSEHOLDS.parent))
        .replace("8787", str(port)),
        encoding="utf-8",
    )
    command = command_of("profile-api.service").replace("/etc/profile-api/server.toml", str(config))
    with running(command, PROFILE_ENRICH_API_KEY=KEY) as process:
        url = f"http://127.0.0.1:{port}"
        assert wait_for(f"{url}/healthz", process).status_code == 200
        allowed = {"authorization": f"Bearer {KEY}"}
        assert "profile_api_requests" in scraped(port, tmp_path)
        process.send_signal(signal.SIGHUP)
        for _ in range(20):
            record = httpx.get(f"{url}/api/v1/entities/1/record?record_id=2280", headers=allowed, timeout=30)
            assert record.json()["data"]["household_id"] == "2280"
            time.sleep(0.05)


@pytest.mark.long
def test_the_processes_of_the_procfile_answer() -> None:
    commands = dict(line.split(": ", 1) for line in text_of("Procfile").splitlines())
    api, shop = free_port(), free_port()
    environment = {
        "PROFILE_ENRICH_API_KEY": KEY, "PORT": str(shop), "STOREFRONT_API_URL": f"http://127.0.0.1:{api}/api/v1"
    }  # fmt: skip
    api_command = ["bash", "-c", f"exec {commands['api'].replace('8787', str(api))}"]
    shop_command = ["bash", "-c", re.sub(r"\buvicorn\b", "exec uvicorn", commands["shop"])]
    with running(api_command, **environment) as first, running(shop_command, **environment) as second:
        wait_for(f"http://127.0.0.1:{api}/healthz", first)
        wait_for(f"http://127.0.0.1:{shop}/ready", second)
        with httpx.Client(base_url=f"http://127.0.0.1:{shop}", follow_redirects=True, timeout=20) as visitor:
            visitor.post("/sign-in", data={"household": "2280"})
            assert "Welcome back, Household 2280" in visitor.get("/").text


def test_the_compose_file_builds_the_containerfile() -> None:
    service = yaml.safe_load(text_of("compose.yaml"))["services"]["profile-api"]
    build = service["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).resolve() == DEPLOY / "Containerfile"
    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", text_of("Containerfile"), re.MULTILINE):
        for source in sources.split():
            assert (demo.ROOT / source).exists(), source


INSTANCE = """
port=$1
if [ -f {folder}/$port.pid ]; then
    pid=$(cat {folder}/$port.pid)
    kill -TERM $pid
    while kill -0 $pid 2>/dev/null; do sleep 0.05; done
fi
{command} > {folder}/$port.log 2>&1 &
echo $! > {folder}/$port.pid
"""


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not here: apt-get install nginx")
@pytest.mark.long
async def test_a_rolling_restart_under_load_fails_no_request(tmp_path: Path) -> None:
    api, front, *instances = (free_port() for _ in range(4))
    folder = tmp_path / "nginx"
    folder.mkdir()
    config = (
        text_of("shop.nginx.conf")
        .replace("stderr warn", "stderr crit")
        .replace("/tmp/shop-deploy", str(folder))
        .replace("8080", str(front))
    )
    for written, port in zip(("8001", "8002"), instances, strict=True):
        config = config.replace(written, str(port))
    (folder / "nginx.conf").write_text(config, encoding="utf-8")
    command = command_of("shop@.service").replace("%i", "$port")
    (folder / "instance.sh").write_text(INSTANCE.format(folder=folder, command=command), encoding="utf-8")
    environment = {
        **os.environ, "PROFILE_ENRICH_API_KEY": KEY, "STOREFRONT_API_URL": f"http://127.0.0.1:{api}/api/v1",
        "STOREFRONT_SECRET": "the same one in both instances", "RESTART": f"bash {folder}/instance.sh ",
    }  # fmt: skip
    rolling = [str(DEPLOY / "rolling_restart.sh"), *map(str, instances)]
    profile_api = demo.profile_api(api, KEY)
    nginx: subprocess.Popen[bytes] | None = None
    try:
        profile_api.start()
        profile_api.wait_until_ready()
        subprocess.run(rolling, env=environment, cwd=demo.ROOT, check=True, timeout=120)  # starts them
        nginx = subprocess.Popen(["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")])
        wait_for(f"http://127.0.0.1:{front}/ready", nginx)
        before = [(folder / f"{port}.pid").read_text() for port in instances]
        statuses, personal = await under_load(f"http://127.0.0.1:{front}", rolling, environment)
        assert [(folder / f"{port}.pid").read_text() for port in instances] != before
        assert set(statuses) == {200}
        assert len(statuses) > 100
        assert personal > len(statuses) / 2
    finally:
        if nginx is not None:
            nginx.terminate()
            nginx.wait(20)
        for port in instances:
            if (folder / f"{port}.pid").exists():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int((folder / f"{port}.pid").read_text()), signal.SIGTERM)
        profile_api.stop()


async def under_load(url: str, command: list[str], environment: dict[str, str]) -> tuple[list[int], int]:
    """Visit pages continuously while a command runs. Returns the statuses, and how many pages were personal."""
    statuses: list[int] = []
    personal = 0
    restarted = asyncio.Event()

    async def visitor() -> None:
        nonlocal personal
        async with httpx.AsyncClient(base_url=url, follow_redirects=True, timeout=30) as client:
            await client.post("/sign-in", data={"household": "2280"})
            while not restarted.is_set():
                page = await client.get("/department/snacks")
                statuses.append(page.status_code)
                personal += "Household 2280" in page.text
                await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(visitor())
        try:
            process = await asyncio.create_subprocess_exec(*command, env=environment, cwd=demo.ROOT)
            assert await process.wait() == 0
            await asyncio.sleep(1)
        finally:
            restarted.set()
    return statuses, personal
