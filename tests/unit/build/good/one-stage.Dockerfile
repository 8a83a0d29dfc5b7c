FROM python:3.12-slim
ENV PIP_NO_CACHE_DIR=1
WORKDIR /app
COPY requirements.txt ./
RUN savedAptMark="$(apt-mark showmanual)" \
    && apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && pip install -r requirements.txt \
    && apt-mark auto '.*' > /dev/null \
    && apt-mark manual $savedAptMark \
    && apt-get purge -y --auto-remove -o APT::AutoRemove::RecommendsImportant=false \
    && rm -rf /var/lib/apt/lists/*
COPY app ./app
COPY --chmod=755 docker-entrypoint.sh /usr/local/bin/
RUN useradd app
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["gosu", "app", "python", "-m", "app"]
