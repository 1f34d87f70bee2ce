# fullyconv serve on the CPU. Build: docker build -t fullyconv-serve .
FROM python:3.13-slim-bookworm AS build
# An index of CPU-only builds of torch and torchvision makes the image several gigabytes smaller.
ARG PIP_EXTRA_INDEX_URL
WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY src ./src
RUN python -m venv /opt/fullyconv \
    && /opt/fullyconv/bin/pip install --no-cache-dir --constraint constraints.txt '.[serve]'

FROM python:3.13-slim-bookworm
COPY --from=build /opt/fullyconv /opt/fullyconv
RUN useradd --system --uid 10001 --no-create-home fullyconv
USER 10001
ENV XDG_CACHE_HOME=/tmp PYTHONDONTWRITEBYTECODE=1
EXPOSE 8000
HEALTHCHECK --start-period=120s \
    CMD ["/opt/fullyconv/bin/python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/readyz', timeout=5)"]
ENTRYPOINT ["/opt/fullyconv/bin/fullyconv", "serve", "--host", "0.0.0.0"]
