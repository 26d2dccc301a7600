# A tool with the libraries of its backend, on the runtime's layers. EXTRA names extras of pyproject.toml:
#   tools              OCR (rapidocr), Point, ZoominSubplot, SegmentRegionAroundPoint (opencv): models inside their wheels
# or tools and one of
#   transformers       GroundingDINO, SAM 2, depth (torch)
#   segment-anything   SAM with segment-anything (torch)
#   groundingdino      GroundingDINO with groundingdino-py (torch, transformers 4)
#   paddleocr          OCR with paddleocr
ARG RUNTIME_IMAGE=ghcr.io/thinkimg/runtime:0.1.0

FROM ${RUNTIME_IMAGE} AS uv
USER 0
ARG UV_VERSION=0.13.9
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m venv /uv && /uv/bin/pip install --quiet "uv==${UV_VERSION}"

FROM ${RUNTIME_IMAGE} AS tool
ARG EXTRA=tools
USER 0
# One layer, with nothing in it but the packages that the extra adds; uv itself stays outside. TORCH_BACKEND=cpu takes torch
# from PyTorch's own index, without CUDA (4 GB less); empty: the lock's, which PyPI serves with CUDA.
ARG TORCH_BACKEND=""
RUN --mount=type=bind,from=uv,source=/uv,target=/uv \
    --mount=type=bind,source=pyproject.toml,target=/src/pyproject.toml \
    --mount=type=bind,source=uv.lock,target=/src/uv.lock \
    --mount=type=bind,source=operator/pyproject.toml,target=/src/operator/pyproject.toml \
    --mount=type=bind,source=images/add_extra.sh,target=/src/add_extra.sh \
    --mount=type=cache,target=/root/.cache/uv \
    sh /src/add_extra.sh "${EXTRA}" "${TORCH_BACKEND}"
# Last, so that another revision of the same packages is the same layer.
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="thinkimg-tool-${EXTRA}" \
      org.opencontainers.image.description="Vision tools of ThinkIMG with the extra ${EXTRA}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
USER 65532:65532
EXPOSE 8000
CMD ["python", "-m", "thinkimg.serving", "--config", "/etc/thinkimg/server/config.json"]
