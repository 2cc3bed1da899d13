"""What is looked up, what is cached, and what a handler sees.

`ProfileKey` is the question, `Record` the frozen answer that all requests share, `Profile` one request's view of it.
"""

from .key import MAX_KEY_BYTES, ProfileKey
from .profile import Profile
from .record import Record
from .status import Reason, Status

__all__ = ["MAX_KEY_BYTES", "Profile", "ProfileKey", "Reason", "Record", "Status"]
