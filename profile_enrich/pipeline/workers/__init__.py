"""Workers of a cluster: client configuration as plain data, and one client per process."""

from .client_config import ClientConfig
from .worker_clients import close_worker_clients, worker_async_client, worker_client

__all__ = ["ClientConfig", "close_worker_clients", "worker_async_client", "worker_client"]
