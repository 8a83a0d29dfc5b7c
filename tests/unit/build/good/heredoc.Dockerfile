# syntax=docker/dockerfile:1.7
ARG PYTHON=3.12
FROM python:${PYTHON}-slim AS deps
ENV PIP_DISABLE_PIP_VERSION_CHECK=1
RUN <<EOF
set -eu
apt-get update
apt-get install -y --no-install-recommends gcc libpq-dev binutils
rm -rf /var/lib/apt/lists/*
python -m venv /opt/venv
EOF
COPY --link requirements.lock /tmp/
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/venv/bin/pip install --require-hashes -r /tmp/requirements.lock
RUN find /opt/venv -name "*.so" -exec strip --strip-unneeded {} +
COPY . /src
RUN /opt/venv/bin/pip install --no-deps /src

FROM deps AS test
RUN /opt/venv/bin/pip install pytest mypy && /opt/venv/bin/pytest /src || true

FROM python:${PYTHON}-slim
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,target=/var/lib/apt,sharing=locked \
    apt-get update && apt-get install -y --no-install-recommends libpq5
COPY --from=deps /opt/venv /opt/venv
COPY <<EOF /etc/service.toml
reload = true
EOF
COPY scripts/entrypoint.sh /entrypoint.sh
RUN if command -v gunicorn >/dev/null 2>&1; then echo found; fi
USER 10001:10001
ENTRYPOINT ["/entrypoint.sh"]
CMD ["/opt/venv/bin/uvicorn", "service.main:app", "--workers", "4"]
