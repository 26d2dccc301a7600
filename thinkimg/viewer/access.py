"""Who may see the page: pages of other sites never, and beyond this machine only who knows the token."""

import hashlib
import hmac
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from thinkimg.serving.doors import is_loopback


def guards(images: str = "") -> dict[str, str]:
    """Headers of a page and all that it is made of: only what this server sends is run and shown.

    Args:
        images: a further source of pictures in the policy's words, such as `blob:`.
    """
    policy = (
        f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: {images}".rstrip()
        + "; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return {
        "content-security-policy": policy,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cross-origin-resource-policy": "same-origin",
        "cache-control": "no-store",
    }


class Gate:
    """ASGI middleware, the outermost.

    With a token: the page is opened as `/?token=…`, which becomes a cookie (of this host, not readable by scripts), so
    that the token does not stay in the address. `Authorization: Bearer …` serves scripts. Compared in constant time.
    Without one: only names of this machine are answered, or a page elsewhere whose name is pointed at 127.0.0.1 could
    read everything (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app = app
        self._token = token or None
        # Cookies know no ports: two viewers behind one name must not take each other's.
        self._cookie = f"thinkimg_view_{hashlib.sha256((token or '').encode()).hexdigest()[:8]}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        refusal = self._refusal(request)
        if refusal is not None:
            _guard(refusal)
            await refusal(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                known = Headers(raw=message["headers"])
                message["headers"] = [
                    *message["headers"],
                    *((name, value) for name, value in _GUARDS if name.decode() not in known),
                ]
            await send(message)

        await self._app(scope, receive, send_guarded)

    def _refusal(self, request: Request) -> Response | None:
        if request.method not in ("GET", "HEAD"):
            return PlainTextResponse("this server only reads\n", 405, {"allow": "GET, HEAD"})
        if self._token is None:
            if not is_loopback(request.url.hostname or ""):
                return PlainTextResponse("this server answers to localhost only; open it by that name\n", 421)
            return None
        given = request.query_params.get("token")
        if given is not None and self._is_right(given):
            rest = urlencode([pair for pair in parse_qsl(request.url.query) if pair[0] != "token"])
            # Relative: behind a proxy or a forwarded port this server does not know its own address.
            response = RedirectResponse(f"?{rest}" if rest else request.url.path.rsplit("/", 1)[-1] or "./", 303)
            response.set_cookie(self._cookie, self._token, httponly=True, samesite="strict", path="/")
            return response
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self._is_right(bearer) or self._is_right(request.cookies.get(self._cookie, "")):
            return None
        return PlainTextResponse(
            "The token is missing or wrong. Open the address that `thinkimg view` printed; it ends with ?token=…\n", 401
        )

    def _is_right(self, given: str) -> bool:
        return self._token is not None and hmac.compare_digest(given.encode("utf-8", "replace"), self._token.encode())


_GUARDS = [(name.encode(), value.encode()) for name, value in guards().items()]


def _guard(response: Response) -> None:
    for name, value in guards().items():
        response.headers.setdefault(name, value)
