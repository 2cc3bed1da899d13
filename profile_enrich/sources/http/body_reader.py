"""Response bodies with a size limit."""

from __future__ import annotations

import zlib

from ...errors import SourceResponseError
from .messages import Headers

__all__ = ["BodyReader"]


class BodyReader:
    """Collect and decompress a body, and stop as soon as it exceeds the limit.

    Decompression stops at the limit, so a small response that expands to gigabytes uses no more memory than that. (HTTP
    clients' own decoders expand a whole chunk first.)

    Args:
        headers: the response headers.
        limit: the largest body in bytes, after decompression.

    Raises:
        SourceResponseError: the response has an encoding that was not requested, or its declared length is too large.
    """

    __slots__ = ("_fed", "_gzip", "_limit", "_parts", "_size")

    def __init__(self, headers: Headers, limit: int) -> None:
        self._fed = False
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0
        coding = headers["content-encoding"].strip().lower() if "content-encoding" in headers else ""
        if coding in ("identity", ""):
            self._gzip = None
            length = headers.get("content-length", "").strip()
            if length.isdecimal() and (len(length) > 15 or int(length) > limit):
                raise self._too_large()
        elif coding in ("gzip", "x-gzip"):
            self._gzip = zlib.decompressobj(wbits=31)
        else:
            raise SourceResponseError("the answer is compressed in a way that was not asked for (only gzip was)")

    def _too_large(self) -> SourceResponseError:
        return SourceResponseError(
            f"the answer is larger than {self._limit:,} bytes; raise max_body_bytes if that is expected"
        )

    def feed(self, chunk: bytes) -> None:
        """Add a chunk of the body as received.

        Raises:
            SourceResponseError: the body is too large, or is declared as gzip and is not one gzip stream.
        """
        if self._gzip is not None:
            self._fed = True
            broken = self._gzip.eof and bool(chunk)
            try:
                chunk = self._gzip.decompress(chunk, self._limit - self._size + 1)
            except zlib.error:
                broken = True
            # The decompressor would keep all bytes after the end of the stream in memory.
            if broken or self._gzip.unused_data:
                raise SourceResponseError("the answer is not one gzip stream, although it says that it is gzip")
        self._size += len(chunk)
        if self._size > self._limit:
            self._parts.clear()
            raise self._too_large()
        self._parts.append(chunk)

    def end(self) -> bytes:
        """Return the whole body.

        Raises:
            SourceResponseError: the compressed data are incomplete.
        """
        if self._gzip is not None and self._fed and not self._gzip.eof:
            raise SourceResponseError("the compressed answer was cut short")
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
