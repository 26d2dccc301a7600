"""`Generator` on `vllm serve --enable-scale-out`: its `/inference/v1/generate` takes token ids and images as they are.

Tokens in and tokens out, no chat template in between. Pictures travel as data URIs, named by their SHA-256.
"""

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import Any

import httpx

from thinkimg.errors import InfrastructureError, UserError
from thinkimg.models.api import data_uri
from thinkimg.models.chat import ContextFull, Family, QuestionRefused
from thinkimg.models.connections import Connections
from thinkimg.models.generator import Generation, GenerationRequest
from thinkimg.models.vllm.generator import check_prompt, finish_of, sampling_options
from thinkimg.refusals import Complaint


@dataclass
class VLLMServerGenerator:
    """Args:
    family: the model family's adapter.
    base_url: of the server, without `/v1`.
    api_key: sent as a bearer token.
    max_model_len: the server's context length, if it is to be kept here.
    timeout_seconds: of one attempt.
    retries: further attempts after a broken connection, 429 or 5xx. A repeated request has the same seed.
    max_concurrency: requests under way at once.
    """

    family: Family
    base_url: str
    api_key: str | None = field(default=None, repr=False)
    max_model_len: int | None = None
    timeout_seconds: float = 300.0
    retries: int = 3
    max_concurrency: int = 256

    def __post_init__(self) -> None:
        if not self.base_url.startswith(("http://", "https://")):
            raise UserError(f"{self.base_url!r} is no http(s) address", "base_url")
        self._url = self.base_url.rstrip("/").removesuffix("/v1") + "/inference/v1/generate"
        self._answered = False
        self._connections = Connections(self.api_key, self.timeout_seconds, self.max_concurrency)

    async def generate(self, request: GenerationRequest) -> Generation:
        """See `Generator.generate`.

        Raises:
            InfrastructureError: the server still fails after all retries.
            ContextFull: the prompt leaves no room.
            QuestionRefused: the server refuses this request, but answers others.
            UserError: the server refuses key, address or request.
            InvariantError: it saw other prompt tokens than ours.
        """
        longest = request.max_tokens
        if self.max_model_len is not None:
            longest = min(longest, self.max_model_len - len(request.tokens))
        if longest < 1:
            raise ContextFull(f"{len(request.tokens)} tokens of the server's {self.max_model_len} are used")
        body = self._body(request, longest)
        client, gate = self._connections.open()
        async with gate:
            answer = await self._with_retries(client, body)
        return self._read(answer, request)

    async def close(self) -> None:
        await self._connections.close()

    def _body(self, request: GenerationRequest, longest: int) -> dict[str, Any]:
        options = sampling_options(self.family, request, longest)
        body: dict[str, Any] = {
            "token_ids": self.family.collapse(request.tokens, request.images),
            # JSON has text as keys
            "sampling_params": options | {"logit_bias": {str(k): v for k, v in options["logit_bias"].items()}},
            "return_token_ids": True,
        }
        if request.images:
            body["content_parts"] = [
                {"type": "image_url", "url": data_uri(image), "uuid": image.sha256} for image in request.images
            ]
        return body

    async def _with_retries(self, client: httpx.AsyncClient, body: dict[str, Any]) -> dict[str, Any]:
        trouble, wait = "", 0.0
        for attempt in range(self.retries + 1):
            if attempt:
                await asyncio.sleep(max(wait, 0.5 * 2 ** (attempt - 1)))
                wait = 0.0
            try:
                response = await client.post(self._url, json=body)
            except httpx.RequestError as error:
                trouble = f"{type(error).__name__}: {error}"
                continue
            if response.status_code != 200:
                complaint = Complaint.of(response)
                if complaint.kind != "retry":
                    raise self._refusal(complaint)
                trouble, wait = str(complaint), complaint.wait
                if wait > self.timeout_seconds:
                    break
                continue
            self._answered = True
            with contextlib.suppress(ValueError):
                return dict(response.json())
            trouble = f"no JSON: {response.text[:200]!r}"
        raise InfrastructureError(f"{self._url}: {trouble} ({attempt + 1} attempt{'s' if attempt else ''})")

    def _refusal(self, complaint: Complaint) -> Exception:
        said = f"{self._url} answers {complaint.status}: {complaint.said}"
        kind = complaint.kind
        if kind == "context":
            return ContextFull(said)
        if kind == "question" or (kind in ("unknown", "pictures") and self._answered):
            return QuestionRefused(said, complaint.reason)
        if complaint.status == 404:
            return UserError(f"{said}. Start the server with --enable-scale-out", "base_url")
        return UserError(said, "api_key" if complaint.status in (401, 403) else "base_url")

    def _read(self, answer: dict[str, Any], request: GenerationRequest) -> Generation:
        try:
            check_prompt(answer["prompt_token_ids"], request)
            choice = answer["choices"][0]
            tokens = [int(token) for token in choice["token_ids"]]
            logprobs = [float(entry["logprob"]) for entry in choice["logprobs"]["content"]]
        except (LookupError, TypeError) as error:
            raise InfrastructureError(f"{self._url}: an answer that cannot be read: {error!r}") from error
        if not tokens or len(tokens) != len(logprobs):
            raise InfrastructureError(f"{self._url}: {len(tokens)} tokens with {len(logprobs)} log-probabilities")
        return Generation(tokens, logprobs, finish_of(choice["finish_reason"]))
