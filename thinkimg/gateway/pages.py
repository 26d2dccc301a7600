"""The gateway's pages for people: `/play`, on which a picture is given to its tools and models, and `/docs`, which
shows what `/openapi.json` says. They are made of the viewer's parts, ask nothing but the gateway's own API with the
key of whoever looks, and load nothing from other machines.
"""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from thinkimg.viewer.access import guards
from thinkimg.viewer.export import example_picture, page_html, read_static

_TITLES = {"play": "ThinkIMG play", "docs": "ThinkIMG gateway"}
_FILES = {"play.js": "text/javascript", "docs.js": "text/javascript", "viewer.css": "text/css"}
_EXAMPLE = "/pages/example.png"
PATHS = (*(f"/{page}" for page in _TITLES), *(f"/pages/{name}" for name in _FILES), _EXAMPLE)
"""They hold nothing of anybody's, and are served without a key."""


class PagesFace:
    """`GET /play`, `GET /docs`, and what they are made of."""

    def __init__(self) -> None:
        self.routes = [
            *(Route(f"/{page}", self.page) for page in _TITLES),
            Route(_EXAMPLE, self.example),
            Route("/pages/{name}", self.file),
        ]

    async def page(self, request: Request) -> Response:
        page = request.url.path.rpartition("/")[2]
        # Relative, so that a gateway below a path of a proxy works; the page itself has no slash at its end.
        return _guarded(page_html(_TITLES[page], "pages/viewer.css", f"pages/{page}.js"), "text/html")

    async def file(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in _FILES:
            return Response("There is no such file.\n", 404)
        return _guarded(read_static(name), _FILES[name])

    async def example(self, request: Request) -> Response:
        """The figure of `thinkimg example`."""
        return _guarded(example_picture(), "image/png")


def _guarded(content: str | bytes, media_type: str) -> Response:
    return Response(content, media_type=media_type, headers=guards(images="blob:"))
