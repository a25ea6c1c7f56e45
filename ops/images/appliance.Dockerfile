# The appliance in one image. Every process of it is one command of `delineate`; docker-compose.yml starts them.
#
#   docker build --file ops/images/appliance.Dockerfile --tag delineate:0.1.0 .
#
# BASE_IMAGE      a Debian or Ubuntu with Python 3.11 or newer and its venv module
# EXTRAS          cpu,postgresql; or gpu,postgresql
# PIP_NO_INDEX=1  installs from the wheels in ops/images/wheels alone, on a site without a package index
ARG BASE_IMAGE=python:3.11.15-slim-bookworm

FROM ${BASE_IMAGE} AS build
ARG EXTRAS=cpu,postgresql
ARG PIP_NO_INDEX=
ARG PIP_FIND_LINKS=/wheels
ARG PIP_NO_CACHE_DIR=1
ARG PIP_DISABLE_PIP_VERSION_CHECK=1
# README.md stands in front of the pattern so that this line also works where there are no wheels.
COPY README.md ops/images/wheels* /wheels/
COPY pyproject.toml README.md LICENSE /src/
COPY appliance /src/appliance
COPY models /src/models
RUN python3 -m venv /opt/delineate \
    && /opt/delineate/bin/pip install "/src[${EXTRAS}]" \
    && /opt/delineate/bin/pip uninstall --yes pip
COPY ops/images/healthcheck.py /opt/delineate/bin/healthcheck

FROM ${BASE_IMAGE}
COPY --from=build /opt/delineate /opt/delineate
# A new volume takes over the owner of the folder that it covers.
RUN useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin delineate \
    && mkdir --parents /var/lib/delineate /etc/delineate/configs \
    && chown delineate:delineate /var/lib/delineate \
    && chmod 0750 /var/lib/delineate \
    && chmod 0755 /opt/delineate/bin/healthcheck
# ONNX Runtime reports to its maker unless it is told not to; nothing leaves the hospital.
ENV PATH=/opt/delineate/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 ORT_DISABLE_TELEMETRY=1
# The command line looks for its configuration in ./configs.
WORKDIR /etc/delineate
VOLUME /var/lib/delineate
USER 10001:10001
EXPOSE 11112 2762
ENTRYPOINT ["delineate"]
CMD ["up"]
