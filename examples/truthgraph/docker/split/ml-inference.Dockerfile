# The image of truthgraph's part ml-inference. `deadweight split` wrote this; from here on it is yours.
#
#   docker build -f docker/split/ml-inference.Dockerfile -t truthgraph-ml-inference .
#   docker build -f docker/split/ml-inference.Dockerfile -t truthgraph-ml-inference:dev --build-arg INCLUDE_DEV=true .
#
# BuildKit builds it: before Docker 23, set DOCKER_BUILDKIT=1.

# true adds what developers need: requirements/dev.txt.
ARG INCLUDE_DEV=false
# The GPUs that the image runs on, as `deadweight gpus` lists them: h100, or sm_80,sm_90, or none. GPU code
# that only others run leaves, about half of a CUDA build of torch. Empty keeps it all.
ARG GPU=
ARG UV_VERSION=0.13.9
# Any requirement, or the URL of a wheel.
ARG DEADWEIGHT=deadweight==0.1.0

# What runs: no compiler, no installer.
FROM python:3.14-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
RUN groupadd --gid 10001 app \
    && useradd --uid 10001 --gid app --no-log-init --no-create-home --home-dir /app --shell /usr/sbin/nologin app \
    && install --directory --owner=app --group=app /app
WORKDIR /app

# Compilers and uv. Nothing of this stage is in the image but what later stages copy.
FROM base AS builder
# Debian's own Python has its headers and venv in packages of their own.
# Versions are not pinned: Debian's mirrors drop those that a newer one replaces.
# hadolint ignore=DL3008
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,target=/var/lib/apt/lists,sharing=locked \
    apt-get update \
    && apt-get install -y --no-install-recommends \
        g++ \
        gcc \
        libc6-dev \
    && { python3 -c 'import ensurepip' 2>/dev/null || apt-get install -y --no-install-recommends python3-dev python3-venv; }
ARG UV_VERSION
RUN python3 -m venv /opt/uv \
    && /opt/uv/bin/pip install --no-cache-dir "uv==${UV_VERSION}" \
    && ln -s /opt/uv/bin/uv /usr/local/bin/uv \
    && uv venv --python python3 /opt/venv
# Installed files are copies, since a cache mount is another file system.
ENV UV_LINK_MODE=copy \
    UV_PYTHON_DOWNLOADS=never \
    UV_PROJECT_ENVIRONMENT=/opt/venv \
    VIRTUAL_ENV=/opt/venv
WORKDIR /src

# deadweight, apart from what it prunes.
FROM builder AS pruner
ARG DEADWEIGHT
RUN --mount=type=cache,target=/root/.cache/uv \
    uv venv --python python3 /opt/deadweight \
    && uv pip install --python /opt/deadweight/bin/python "${DEADWEIGHT}"

# Dependencies change only with their lock, so the code is not here yet.
FROM builder AS deps-stage
ARG INCLUDE_DEV
RUN --mount=type=cache,target=/root/.cache/uv \
    --mount=type=bind,source=requirements/ml.txt,target=/src/requirements/ml.txt \
    --mount=type=bind,source=requirements/dev.txt,target=/src/requirements/dev.txt \
    if [ "$INCLUDE_DEV" = true ]; then set -- -r requirements/dev.txt; fi \
    && uv pip install --require-hashes -r requirements/ml.txt "$@"
# Not in the runtime stage: there the old bytes would stay in the layer below the new ones.
ARG GPU
RUN --mount=type=bind,from=pruner,source=/opt/deadweight,target=/opt/deadweight \
    /opt/deadweight/bin/deadweight prune /opt/venv ${GPU:+--gpu "$GPU"}

# What goes to /app, readable for all and nobody's to change but root's.
FROM builder AS app-stage
RUN --mount=type=cache,target=/root/.cache/uv \
    --mount=type=bind,target=/src,rw \
    uv pip install --no-deps --target /staged/lib . \
    && chmod -R a+rX,go-w /staged

# What changes least comes first: a new version of the code is one small layer, the last.
FROM base AS runtime
ENV PATH=/opt/venv/bin:/app/lib/bin:$PATH \
    PYTHONPATH=/app/lib
COPY --from=deps-stage /opt/venv /opt/venv
COPY --from=app-stage /staged /app
LABEL org.opencontainers.image.title="truthgraph" \
    org.opencontainers.image.version="0.1.0"
# app, by number: Kubernetes' runAsNonRoot cannot tell who a name is.
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
CMD ["uvicorn", "truthgraph.main:app", "--host", "0.0.0.0", "--port", "8000"]
