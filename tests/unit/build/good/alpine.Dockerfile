FROM python:3.12-alpine
ENV PYTHONUNBUFFERED 1
WORKDIR /srv
COPY requirements.txt .
RUN set -eux; \
    apk add --no-cache libpq; \
    apk add --no-cache --virtual .build-deps gcc musl-dev postgresql-dev; \
    pip install --no-cache-dir -r requirements.txt; \
    find /usr/local -type d -name __pycache__ -exec rm -rf {} + 2>/dev/null || true; \
    apk del --no-network .build-deps
RUN addgroup -S web && adduser -S web -G web
COPY --chown=web:web shop ./shop
COPY manage.py .
USER web
EXPOSE 8000
HEALTHCHECK --interval=30s CMD wget -qO- http://127.0.0.1:8000/health >/dev/null 2>&1 || exit 1
CMD ["gunicorn", "shop.wsgi:application", "-b", "0.0.0.0:8000"]
