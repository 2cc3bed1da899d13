"""Data types of a lookup: key, record, profile, status and reason.

`ProfileKey` identifies a profile, `Record` holds the frozen data shared by all requests, and `Profile` is one request's
view.
"""

from .key import MAX_KEY_BYTES, ProfileKey
from .profile import Profile
from .record import Record
from .status import Reason, Status

__all__ = ["MAX_KEY_BYTES", "Profile", "ProfileKey", "Reason", "Record", "Status"]
