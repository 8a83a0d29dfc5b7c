# The report's second phase, as it was built: several stages, compilers in one of their own, and a strip step that never
# stripped anything, since it stands in a stage without strip, and its errors go to /dev/null.
FROM debian:bookworm AS base
ENV PYTHONUNBUFFERED=1
RUN apt-get update && apt-get install -y --no-install-recommends \
    python3 postgresql-client curl ca-certificates \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /app

FROM base AS builder
RUN apt-get update && apt-get install -y --no-install-recommends \
    python3-pip python3-dev build-essential gcc g++ libpq-dev \
    && rm -rf /var/lib/apt/lists/*
RUN pip install --break-system-packages uv==0.13.9

FROM builder AS deps-stage
ARG INCLUDE_DEV=false
COPY pyproject.toml README.md ./
COPY requirements ./requirements
COPY src ./src
RUN if [ "$INCLUDE_DEV" = true ]; then extras=ml,dev; else extras=ml; fi \
    && uv pip install --system --break-system-packages -c requirements/ml.txt -c requirements/dev.txt ".[$extras]"

FROM base AS runtime
COPY --from=deps-stage /usr/local/lib/python3.11/dist-packages /usr/local/lib/python3.11/dist-packages
RUN find /usr/local/lib/python3.11/dist-packages -name "*.so*" -type f \
    -exec strip --strip-unneeded {} + 2>/dev/null || true
COPY --from=deps-stage /app /app
RUN useradd --system appuser && chown -R appuser /app
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --retries=3 CMD curl -fsS http://127.0.0.1:8000/health || exit 1
CMD ["python3", "-m", "uvicorn", "truthgraph.main:app", "--host", "0.0.0.0", "--port", "8000", "--reload"]
