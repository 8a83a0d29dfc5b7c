# The report's first phase: tests and scripts are not copied, development tools stay out unless INCLUDE_DEV says so.
FROM debian:bookworm AS base
ENV PYTHONUNBUFFERED=1
RUN apt-get update && apt-get install -y --no-install-recommends \
    python3 python3-pip python3-dev build-essential gcc g++ libpq-dev postgresql-client curl ca-certificates \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /app
RUN pip install --break-system-packages uv==0.13.9

FROM base AS runtime
ARG INCLUDE_DEV=false
COPY pyproject.toml README.md ./
COPY requirements ./requirements
COPY src ./src
RUN if [ "$INCLUDE_DEV" = true ]; then extras=ml,dev; else extras=ml; fi \
    && uv pip install --system --break-system-packages -c requirements/ml.txt -c requirements/dev.txt ".[$extras]"
RUN useradd --system appuser && chown -R appuser /app
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --retries=3 CMD curl -fsS http://127.0.0.1:8000/health || exit 1
CMD ["python3", "-m", "uvicorn", "truthgraph.main:app", "--host", "0.0.0.0", "--port", "8000", "--reload"]
