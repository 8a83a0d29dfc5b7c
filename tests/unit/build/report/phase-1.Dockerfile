# Phase 1: stages, and a COPY --from of the whole prefix.
FROM python:3.12-slim AS base
ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
RUN apt-get update && apt-get install -y build-essential gcc g++ libpq-dev curl \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /app
RUN pip install --no-cache-dir uv

FROM base AS builder
COPY pyproject.toml uv.lock README.md ./
COPY src ./src
RUN uv pip install --no-cache --system .

FROM base AS runtime
COPY --from=builder /usr/local /usr/local
COPY src ./src
COPY tests scripts ./
RUN useradd --create-home appuser && chown -R appuser:appuser /app
EXPOSE 8000
CMD ["uvicorn", "truthgraph.main:app", "--host", "0.0.0.0", "--port", "8000", "--reload"]
