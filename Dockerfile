# marsjax for a CPU, or for an NVIDIA GPU with the driver of CUDA 12 or 13; no privileges, not root.
#
#   docker build --build-arg DEVICE=cuda12 -t marsjax .                  # cpu (the default), cuda12 or cuda13
#   docker run --rm --gpus all -v "$PWD/runs:/home/marsjax/runs" marsjax forecast --config=forecast
#
# The packages are those of docker/requirements-DEVICE.txt, by their hashes. docker/prove.sh builds and runs all of it.
FROM debian:bookworm-slim AS base
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 marsjax
USER marsjax
WORKDIR /home/marsjax
ENV PATH=/home/marsjax/venv/bin:$PATH PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
ARG DEVICE=cpu
COPY docker/requirements-${DEVICE}.txt requirements.txt
RUN python3 -m venv venv && pip install --require-hashes --only-binary :all: -r requirements.txt

FROM base AS wheel
COPY --chown=marsjax . source
RUN pip wheel --no-deps --no-build-isolation --wheel-dir wheels ./source

FROM base
COPY --from=wheel /home/marsjax/wheels wheels
RUN pip install --no-deps wheels/*.whl && mkdir runs
ENTRYPOINT ["marsjax"]
CMD ["--help"]
