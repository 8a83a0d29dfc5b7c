FROM nvidia/cuda:12.8.0-cudnn-devel-ubuntu22.04 AS build
RUN apt-get update && apt-get install -y python3.11 python3.11-venv git && rm -rf /var/lib/apt/lists/*
RUN python3.11 -m venv /opt/venv && /opt/venv/bin/pip install uv
WORKDIR /src
COPY pyproject.toml uv.lock ./
RUN uv export --frozen --no-dev -o requirements.txt && \
    uv pip sync --python /opt/venv requirements.txt

FROM nvidia/cuda:12.8.0-cudnn-runtime-ubuntu22.04
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3.11 libgomp1 curl \
    && apt-get clean && rm -rf /var/lib/apt/lists/* /tmp/* /var/tmp/*
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY src/ ./src/
RUN mkdir -p /data/models && useradd -u 1000 -m svc && chown -R svc:svc /data
USER svc
HEALTHCHECK CMD curl -f http://localhost:8000/health || exit 1
CMD exec /opt/venv/bin/uvicorn src.main:app --host 0.0.0.0 --port ${PORT:-8000}
