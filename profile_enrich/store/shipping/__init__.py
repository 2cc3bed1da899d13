"""Ship the generations of a local store through object storage (extra `object-storage`).

One machine builds and publishes; any number of servers download each new generation and swap it in.

```python
publish_store("profiles.store", "s3://bucket/profiles", key=key)          # where the store is built
with GenerationFollower("copy.store", "s3://bucket/profiles", key=key) as follower:
    follower.poll()                                                      # where it is served: LocalStore("copy.store")
```
"""

from __future__ import annotations

from .follower import GenerationFollower
from .publisher import PublishReport, publish_store

__all__ = ["GenerationFollower", "PublishReport", "publish_store"]
