"""`make demo`: the embedded Profile API and a shop, as two processes that can be stopped and started one by one."""

from .commands import HOUSEHOLDS, profile_api, storefront
from .control import CONTROL_VARIABLE, ControlServer
from .launcher import Launcher
from .ports import Ports
from .process import HOST, ROOT, DemoError, Process

__all__ = [
    "CONTROL_VARIABLE",
    "HOST",
    "HOUSEHOLDS",
    "ROOT",
    "ControlServer",
    "DemoError",
    "Launcher",
    "Ports",
    "Process",
    "profile_api",
    "storefront",
]
