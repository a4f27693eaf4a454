# The exporter as an image. `make image` builds it; docs/deployment.md says how to run it.
#
# BASE may be any image with Python 3.11 or newer. It needs neither a shell nor pip.
# BUILD_BASE needs the same Python at the same path, a shell and the module venv.
ARG BASE=python:3.14.7-slim-trixie@sha256:51dafde81dbdb6ebde285137a295cf18a47ca95234fe388a343719cb97305b3d
ARG BUILD_BASE=${BASE}

FROM ${BUILD_BASE} AS build
# Only wheels, with the hashes of the requirements: no compiler is needed and no package runs its own code here.
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ONLY_BINARY=:all: \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY requirements.txt requirements-build.txt ./
RUN python3 -m venv /tools && /tools/bin/pip install --require-hashes --requirement requirements-build.txt
COPY LICENSE README.md pyproject.toml ./
COPY exophone_exporter ./exophone_exporter
# pip stays in /tools. The image is read-only when it runs, so modules are compiled now and never compared
# with their sources again.
RUN /tools/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /dist . \
 && python3 -m venv --without-pip /opt/exophone-exporter \
 && /tools/bin/pip --python /opt/exophone-exporter/bin/python install --no-compile --require-hashes --requirement requirements.txt \
 && /tools/bin/pip --python /opt/exophone-exporter/bin/python install --no-compile --no-deps /dist/*.whl \
 && /opt/exophone-exporter/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/exophone-exporter/lib \
 && rm /opt/exophone-exporter/bin/[Aa]ctivate*

FROM ${BASE}
ARG VERSION=unknown
ARG REVISION=unknown
ARG CREATED=unknown
LABEL org.opencontainers.image.title="exophone-exporter" \
      org.opencontainers.image.description="Prometheus exporter for Exotel ExoPhones" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
# exophone_exporter_build_info shows the revision; docs/scaling.md explains MALLOC_ARENA_MAX; a crash, or SIGABRT, logs
# where each thread was.
ENV PATH=/opt/exophone-exporter/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONFAULTHANDLER=1 \
    MALLOC_ARENA_MAX=2 \
    EXOPHONE_REVISION=${REVISION}
COPY --from=build /opt/exophone-exporter /opt/exophone-exporter
WORKDIR /
# A number, so that Kubernetes can verify that it is not root.
USER 65532:65532
EXPOSE 10396
STOPSIGNAL SIGTERM
# With another port, a route prefix, TLS or users, configure a health check of your own: docs/deployment.md.
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s --retries=3 \
  CMD ["/opt/exophone-exporter/bin/python", "-I", "-c", "from http.client import HTTPConnection as C; c = C('localhost', 10396, timeout=4); c.request('GET', '/-/healthy'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["/opt/exophone-exporter/bin/exophone-exporter"]
