"""Pictures that callers send or tools make: read behind limits, held by hash for whoever sent them, never fetched from
a host that the configuration does not name."""

import asyncio
import base64
import binascii
import re
from concurrent.futures import ThreadPoolExecutor
from weakref import WeakValueDictionary

import httpx
from PIL import Image as Pillow

from thinkimg import wire
from thinkimg.cache import BoundedCache
from thinkimg.gateway.config import Limits
from thinkimg.gateway.refusals import Refusal, refuse
from thinkimg.image import Image

LARGE_BYTES = 1024 * 1024
"""What is larger is decoded in a thread: it would hold up everybody else's requests."""

_FETCH_SECONDS = 15.0
_DECODERS = 2
"""Threads that decode whole pictures. Other work of the gateway has threads of its own, and does not wait for them."""
_DATA_URL = re.compile(r"data:[\w/+.\-]*(?:;[\w=.\-]+)*;base64,", re.IGNORECASE)
_HANDLE = re.compile(r"img_[0-9a-f]{16}")


class Pictures:
    """Of whoever holds most, the least recently used goes first, so that nobody drives out what another holds. One
    caller never sees another's: `owner` is part of every name.

    Args:
        limits: bytes and pixels of one picture, bytes of all that are held.
        hosts: `host` or `host:port` from which pictures may be fetched.
    """

    def __init__(self, limits: Limits, hosts: tuple[str, ...] = ()) -> None:
        self._limits = limits
        self._hosts = frozenset(host.lower() for host in hosts)
        self._decoders = ThreadPoolExecutor(_DECODERS, thread_name_prefix="decode")
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._held: BoundedCache[tuple[str, str], Image] = BoundedCache(limits.held_bytes, fair=True)

    @property
    def held_bytes(self) -> int:
        """Of all pictures that are held."""
        return self._held.bytes

    # ---- holding ----------------------------------------------------------------------------------------------------

    def hold(self, owner: str, image: Image) -> str:
        """Keep it; returns the handle by which the owner may name it."""
        name, image = handle_of(image), image.held_for(owner)
        self._held.put((owner, name), image, len(image.data), owner)
        return name

    def held(self, owner: str, sha256: str) -> Image | None:
        image = self.by_handle(owner, f"img_{sha256[:16]}")
        return image if image is not None and image.sha256 == sha256 else None

    def by_handle(self, owner: str, handle: str) -> Image | None:
        return self._held.get((owner, handle))

    # ---- reading ----------------------------------------------------------------------------------------------------

    def check(self, data: bytes) -> Image:
        """Raises `Refusal`: 413 too large, 415 no picture that we accept."""
        read = wire.read_image(data, self._limits.image_bytes, self._limits.image_pixels)
        if isinstance(read, wire.Problem):
            raise Refusal(read)
        return read

    async def read(self, owner: str, text: str) -> Image:
        """A picture given as a handle, a data URL, base64, or an address.

        Raises:
            Refusal: it is none of these, the host is not allowed, the picture is refused.
        """
        if _HANDLE.fullmatch(text):
            return self._known(owner, text)
        if text[:8].lower().startswith(("http://", "https://")):
            return await self.checked(await self._fetch(text))
        if len(text) > LARGE_BYTES:
            return await asyncio.to_thread(lambda: self.check(_decode_base64(text)))
        return self.check(_decode_base64(text))

    def _known(self, owner: str, handle: str) -> Image:
        image = self.by_handle(owner, handle)
        if image is None:
            raise refuse(404, "unknown_image", f"there is no picture {handle}; it was never sent, or was dropped since")
        return image

    async def checked(self, data: bytes) -> Image:
        """`check`, without holding up others."""
        return await asyncio.to_thread(self.check, data) if len(data) > LARGE_BYTES else self.check(data)

    async def decode(self, owner: str, image: Image) -> None:
        """Decode it once, to see that there is a picture behind its header. One of each owner at a time, so that
        nobody's pictures take all threads; who leaves meanwhile has his turn until the work has ended, which nothing
        can stop.

        Raises:
            ImageDecodeError: its data are broken.
        """
        turn = self._turns.setdefault(owner, asyncio.Lock())
        await turn.acquire()
        work = asyncio.get_running_loop().run_in_executor(self._decoders, image.pixels)

        def ended(done: "asyncio.Future[Pillow.Image]") -> None:
            done.exception()  # also where nobody waits for it any more
            turn.release()

        work.add_done_callback(ended)
        await asyncio.shield(work)

    async def _fetch(self, address: str) -> bytes:
        url = self._allowed(address)
        try:
            async with (
                asyncio.timeout(_FETCH_SECONDS),
                httpx.AsyncClient(follow_redirects=False, trust_env=False) as client,
                client.stream("GET", url) as answer,
            ):
                if answer.status_code != 200:  # a redirect might lead to a host that is not allowed
                    raise refuse(400, "image_url", f"{url.host} answers {answer.status_code} for the picture")
                return await self._collect(answer)
        except (httpx.HTTPError, TimeoutError) as error:
            raise refuse(400, "image_url", f"the picture cannot be had from {url.host}") from error

    def _allowed(self, address: str) -> httpx.URL:
        try:
            url = httpx.URL(address)
        except httpx.InvalidURL as error:
            raise refuse(400, "image_url", "the picture's address is none") from error
        place = url.host.lower()
        port = url.port or (443 if url.scheme == "https" else 80)
        if url.userinfo or not {place, f"{place}:{port}"} & self._hosts:
            detail = (
                f"pictures are not fetched from {place[:100]!r}: send them as data URLs (data:image/png;base64,...)"
            )
            raise refuse(400, "image_url", detail)
        return url

    async def _collect(self, answer: httpx.Response) -> bytes:
        chunks, total = [], 0
        async for chunk in answer.aiter_bytes():
            total += len(chunk)
            if total > self._limits.image_bytes:
                break  # `check` says that it is too large
            chunks.append(chunk)
        else:
            return b"".join(chunks)
        raise refuse(413, "refused", f"The image has more than {self._limits.image_bytes:,} bytes.")


def handle_of(image: Image) -> str:
    """A name from the content, so that it means the same on every gateway."""
    return f"img_{image.sha256[:16]}"


def _decode_base64(text: str) -> bytes:
    try:
        match = _DATA_URL.match(text)
        return base64.b64decode(text[match.end() :] if match else text, validate=True)
    except (binascii.Error, ValueError) as error:
        expected = "a data URL (data:image/png;base64,...), base64, or a handle of an earlier picture"
        raise refuse(400, "image_encoding", f"a picture must be {expected}: {error}") from error
