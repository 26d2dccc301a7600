"""The page and what it asks for, over HTTP. Nothing here writes to a run."""

import contextlib
import io
import re
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from thinkimg.cache import BoundedCache
from thinkimg.errors import UserError
from thinkimg.image import FORMATS, Image, ImageDecodeError
from thinkimg.trajectory.files import own_file
from thinkimg.viewer.access import Gate
from thinkimg.viewer.export import export_page, page_html, read_static
from thinkimg.viewer.index import Index
from thinkimg.viewer.queries import Queries, compact_json
from thinkimg.viewer.record import Decode, page_record, token_decoder
from thinkimg.viewer.selection import Selection

_MOST_ROWS = 500  # of one answer
_LOOK_EVERY = 2.0  # seconds: how often files are looked at for new lines, while somebody watches
_PATIENCE = 0.1  # seconds: what a few new lines take
_PICTURE = re.compile(r"([0-9a-f]{64})\.(png|jpg|webp|gif|bmp|tiff)")
_FILE = re.compile(r"[0-9]{1,18}", re.ASCII)
_TOKENIZER_BYTES = 64 * 1024 * 1024  # of one with 150,000 words, roughly
_MOST_TOKENIZERS = 8
_FOREVER = "private, max-age=31536000, immutable"


class Viewer:
    """Answers over one index; starts passes over the files as they are needed."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self.queries = Queries(index)
        self._looked = 0.0
        self._lock = threading.Lock()
        self._decoders: BoundedCache[str, Decode | None] = BoundedCache(_MOST_TOKENIZERS * _TOKENIZER_BYTES)

    def look(self) -> None:
        """A pass in the background, unless there was one just now; a short one is waited for."""
        with self._lock:
            if time.monotonic() - self._looked < _LOOK_EVERY or self.index.progress.working:
                return
            self._looked = time.monotonic()
        reading = threading.Thread(target=self.index.refresh, name="index", daemon=True)
        reading.start()
        reading.join(_PATIENCE)

    def state(self) -> dict[str, Any]:
        self.look()
        progress = self.index.progress
        return {
            "version": self.index.version,
            "working": progress.working,
            "read": progress.done / progress.total if progress.total else 1.0,
            "runs": [run.name for run in self.index.runs],
            "facets": self.queries.facets(),
            "problems": self.queries.problems(),
        }

    def trajectory(self, key: str) -> dict[str, Any] | None:
        found = self.index.record(key)
        if found is None:
            return None
        row, record = found
        shown = page_record(record, row["file"], Path(row["path"]).parent / "images", self._decoder(row["run"]))
        listed = self.queries.rows_of([row["id"]])[0]
        return {"row": listed, "record": shown, "related": self.queries.related(key)}

    def _decoder(self, run: str) -> Decode | None:
        def load() -> Decode | None:
            folder = next((known.folder for known in self.index.runs if known.name == run), None)
            return token_decoder(folder) if folder else None

        return self._decoders.get_or_make(run, load, lambda decoder: _TOKENIZER_BYTES if decoder else 1)


def create_app(index: Index, token: str | None = None) -> Starlette:
    """The ASGI application. `token`: see `thinkimg.viewer.access.Gate`."""
    viewer = Viewer(index)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        viewer.look()
        yield
        index.close()

    def page(_: Request) -> Response:
        return Response(page_html(), media_type="text/html")

    def state(_: Request) -> Response:
        return _json(viewer.state())

    def trajectories(request: Request) -> Response:
        selection = Selection.parse(request.query_params, ("offset", "limit", "find", "token"))
        answer = viewer.queries.page(selection, *_window(request))
        if key := request.query_params.get("find"):
            answer["found"] = viewer.queries.position(selection, key)
        return _json(answer)

    def trajectory(request: Request) -> Response:
        found = viewer.trajectory(request.path_params["key"])
        return _json(found) if found else _refuse(404, "There is no such trajectory in these runs.")

    def pairs(request: Request) -> Response:
        left, right = (
            {name.partition(".")[2]: value for name, value in request.query_params.items() if name.startswith(side)}
            for side in ("left.", "right.")
        )
        outcome = request.query_params.get("outcome", "")
        return _json(viewer.queries.pairs(left, right, outcome, *_window(request)))

    def curves(_: Request) -> Response:
        return _json(viewer.queries.curves())

    def picture(request: Request) -> Response:
        name = _PICTURE.fullmatch(request.path_params["name"])
        file = request.path_params["file"]
        folder = viewer.index.folder_of_pictures(int(file)) if _FILE.fullmatch(file) else None
        path = own_file(folder, name[0]) if name and folder else None
        if path is None:
            return _refuse(404, "This picture was not kept.")
        return _picture(path)

    def export(request: Request) -> Response:
        selection = Selection.parse(request.query_params, ("token",))
        html = export_page(viewer.queries, selection, viewer.trajectory)
        return Response(
            html, media_type="text/html", headers={"content-disposition": 'attachment; filename="trajectories.html"'}
        )

    def static(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in ("viewer.js", "viewer.css"):
            return _refuse(404, "There is no such file.")
        media_type = "text/javascript" if name.endswith(".js") else "text/css"
        return Response(read_static(name), media_type=media_type)

    def user_error(_: Request, error: Exception) -> Response:
        return _refuse(400, str(error))

    def no_such_number(_: Request, error: Exception) -> Response:
        return _refuse(404, "There is nothing of such a number.")

    return Starlette(
        routes=[
            Route("/", page),
            Route("/api/state", state),
            Route("/api/trajectories", trajectories),
            Route("/api/trajectories/{key:path}", trajectory),
            Route("/api/pairs", pairs),
            Route("/api/curves", curves),
            Route("/api/export", export),
            Route("/images/{file}/{name}", picture),
            Route("/static/{name}", static),
        ],
        middleware=[Middleware(Gate, token=token), Middleware(_Compressed, minimum_size=2000, compresslevel=1)],
        exception_handlers={UserError: user_error, OverflowError: no_such_number},
        lifespan=lifespan,
    )


class _Compressed(GZipMiddleware):
    """All but pictures, which are compressed already."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_picture = scope["type"] == "http" and scope["path"].startswith("/images/")
        await (self.app if is_picture else super().__call__)(scope, receive, send)


def _window(request: Request) -> tuple[int, int]:
    try:
        offset, limit = (
            int(request.query_params.get(name, default)) for name, default in (("offset", 0), ("limit", 100))
        )
    except ValueError:
        raise UserError("must be a whole number", "offset, limit") from None
    return max(0, offset), min(max(1, limit), _MOST_ROWS)


def _picture(path: Path) -> Response:
    """As it is, but for TIFF, which browsers do not show."""
    headers = {"cache-control": _FOREVER, "content-security-policy": "sandbox"}
    if path.suffix != ".tiff":
        return FileResponse(path, media_type=_MEDIA_TYPES[path.suffix], headers=headers)
    try:
        buffer = io.BytesIO()
        Image.from_file(path).pixels().save(buffer, "PNG")
    except ImageDecodeError as error:
        return _refuse(404, str(error))
    return Response(buffer.getvalue(), media_type="image/png", headers=headers)


_MEDIA_TYPES = {
    "." + name.lower().replace("jpeg", "jpg"): f"image/{name.lower()}" for name in FORMATS if name != "TIFF"
}


def _json(value: Any) -> Response:
    return Response(compact_json(value), media_type="application/json")


def _refuse(status: int, message: str) -> Response:
    return Response(compact_json({"error": message}), status, media_type="application/json")
