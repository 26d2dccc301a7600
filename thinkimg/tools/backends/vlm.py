"""A vision-language model behind an OpenAI-compatible endpoint, asked one question about one picture.

Pictures leave this machine for the address that the options name, and for no other; without one nothing is sent.
"""

import base64
import os
from collections.abc import Sequence
from typing import Any

import httpx

from thinkimg.errors import InfrastructureError, ModelError, UserError
from thinkimg.image import Image
from thinkimg.refusals import Complaint
from thinkimg.replies import Completion, Filtered, read_reply
from thinkimg.tools.backends.options import EndpointOptions
from thinkimg.tools.coordinates import other_units

_REFUSED = "the model behind this tool does not take this picture or this text"


class VisionLanguageModel:
    """The endpoint, asked for its models when this is made. Thread-safe.

    A failure is not tried again here: whoever called the tool does that, with its own deadline.
    """

    def __init__(self, options: EndpointOptions) -> None:
        """Raises:
        UserError: an option is missing or wrong, or the endpoint refuses key or model.
        InfrastructureError: the endpoint does not answer.
        """
        self._options = options
        self._url = _address(options.endpoint)
        if not options.model:
            raise UserError("the backend vlm needs the name of a model, as its endpoint has it", "options.model")
        key = os.environ.get(options.api_key_variable, "").strip()
        if not key.isascii() or not key.isprintable():
            raise UserError("the key holds characters that no HTTP header can carry", options.api_key_variable)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(headers=headers, timeout=options.timeout_seconds)
        self._refuse_unknown_model()
        self.details = {"endpoint": self._url, "model": options.model}

    def ask(self, image: Image, question: str) -> str:
        """What the model answers. The picture is sent upright and lossless, whatever file it came in.

        Raises:
            ImageDecodeError: the picture is broken.
            ModelError: the endpoint does not take this picture, or this question about it.
            InfrastructureError: no answer, or another refusal: nothing that the caller wrote can be at fault.
        """
        upright = base64.b64encode(Image.from_pixels(image.pixels()).data).decode()
        content = [
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{upright}"}},
            {"type": "text", "text": question},
        ]
        body = {
            "model": self._options.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
            "max_tokens": self._options.max_tokens,
        }
        found = self._read(self._request("POST", "/chat/completions", json=body))
        if isinstance(found, Completion):
            return found.text
        if found.kind in ("question", "context"):
            raise ModelError(_REFUSED, kind="refused")
        raise InfrastructureError(f"{self._url} answers {found.status}: {found.said}")

    def _read(self, response: httpx.Response) -> Completion | Complaint:
        """Raises `ModelError`: a filter behind status 200. `InfrastructureError`: it is no completion."""
        if response.status_code != 200:
            return Complaint.of(response)
        try:
            return read_reply(response)
        except Filtered as error:
            raise ModelError(_REFUSED, kind="refused") from error
        except ValueError as error:
            raise InfrastructureError(f"{self._url} sent no chat completion: {response.text[:200]!r}") from error

    def refuse_other_units(self, places: Sequence[Sequence[float]]) -> None:
        """For an answer's points or boxes, where percent was asked for.

        Raises:
            InfrastructureError: none of them is percent: a place that is given as if it were right would be wrong, and
                whoever called the tool has no part in it.
        """
        units = [other_units(place) for place in places]
        if units and all(units):
            raise InfrastructureError(
                f"{self._url}: the model {self._options.model} answers {list(places[0])}, which looks like {units[0]}, "
                "where percent of width and height is asked for (0 to 100); ask it in its own wording, "
                "or take a model that answers in percent"
            )

    def _refuse_unknown_model(self) -> None:
        """Not every endpoint lists its models; one that does is believed."""
        response = self._request("GET", "/models")
        if response.status_code in (401, 403):
            variable = self._options.api_key_variable
            raise UserError(f"{self._url} refuses the key: {Complaint.of(response).said}. Set {variable}", variable)
        try:
            names = [str(entry["id"]) for entry in response.json()["data"]] if response.status_code == 200 else []
        except (ValueError, LookupError, TypeError):
            return
        # Google's list has its names behind `models/`.
        if names and self._options.model not in {
            spelled for name in names for spelled in (name, name.split("/", 1)[-1])
        }:
            listed = ", ".join(names[:20])
            raise UserError(f"{self._url} has no model {self._options.model!r}; it has {listed}", "options.model")

    def _request(self, method: str, path: str, **content: Any) -> httpx.Response:
        try:
            return self._client.request(method, self._url + path, **content)
        except httpx.TimeoutException as error:
            limit = self._options.timeout_seconds
            raise InfrastructureError(f"{self._url} did not answer within {limit:g} s") from error
        except httpx.RequestError as error:
            raise InfrastructureError(f"{self._url}: {type(error).__name__}: {error}") from error


def _address(endpoint: str) -> str:
    try:
        url = httpx.URL(endpoint)
    except httpx.InvalidURL:
        url = httpx.URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise UserError(
            f"the backend vlm needs an OpenAI-compatible endpoint, such as http://host:8000/v1, not {endpoint!r}",
            "options.endpoint",
        )
    return endpoint.rstrip("/").removesuffix("/chat/completions")
