"""`/play`: a page on which a person gives a picture to the tools and models of this gateway, and watches. It is made of
the viewer's parts, and asks nothing but the gateway's own API, with the caller's key.
"""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from thinkimg.viewer.access import guards
from thinkimg.viewer.export import example_picture, page_html, read_static

_SCRIPTS = {"play.js": "text/javascript", "viewer.css": "text/css"}
PATHS = ("/play", *(f"/play/{name}" for name in _SCRIPTS), "/play/example.png")
"""They hold nothing of anybody's, and are served without a key."""


class PlayFace:
    """`GET /play` and what the page is made of."""

    def __init__(self) -> None:
        self.routes = [
            Route("/play", self.page),
            Route("/play/example.png", self.example),
            Route("/play/{name}", self.script),
        ]

    async def page(self, request: Request) -> Response:
        # Relative, so that a gateway below a path of a proxy works; the page itself has no slash at its end.
        return _guarded(page_html("ThinkIMG play", "play/viewer.css", "play/play.js"), "text/html")

    async def script(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in _SCRIPTS:
            return Response("There is no such file.\n", 404)
        return _guarded(read_static(name), _SCRIPTS[name])

    async def example(self, request: Request) -> Response:
        """The figure of `thinkimg example`."""
        return _guarded(example_picture(), "image/png")


def _guarded(content: str | bytes, media_type: str) -> Response:
    return Response(content, media_type=media_type, headers=guards(images="blob:"))
