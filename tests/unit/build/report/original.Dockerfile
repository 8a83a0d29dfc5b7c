# The service as the report found it, as far as its facts can be put together again.
FROM python:3.12-slim AS base
ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
RUN apt-get update && apt-get install -y \
    build-essential \
    gcc \
    g++ \
    libpq-dev \
    curl \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /app
RUN pip install uv

FROM base AS runtime
ARG INCLUDE_DEV=true
COPY pyproject.toml uv.lock README.md ./
COPY . .
RUN uv pip install --system -e ".[dev]"
RUN useradd --create-home appuser && chown -R appuser:appuser /app
EXPOSE 8000
CMD ["uvicorn", "truthgraph.main:app", "--host", "0.0.0.0", "--port", "8000", "--reload"]
