# syntax=docker/dockerfile:1.7
#
#   docker build --target cpu -t preceptor:cpu .
#   docker build --target cuda -t preceptor:cuda .
#   docker run --rm -v "$PWD:/data" preceptor:cpu select select.yaml --out runs/first
#   docker run --rm --gpus all -v "$PWD:/data" preceptor:cuda distill distill.yaml --out runs/student
#
# The container runs as user 1000; `--user "$(id -u)"` makes its files yours. EXTRAS says what comes
# with it. torch comes as pip finds it, with the libraries of a GPU: for a smaller image without them,
# name an index that has builds for CPUs, `--build-arg PIP_EXTRA_INDEX_URL=...`.

ARG EXTRAS=openai,train,verify

FROM python:3.12-slim-bookworm AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN --mount=type=cache,target=/root/.cache/pip \
    pip wheel --no-deps --wheel-dir /wheels .

FROM python:3.12-slim-bookworm AS cpu
ARG EXTRAS
ARG PIP_EXTRA_INDEX_URL
RUN python -m venv /opt/preceptor
ENV PATH=/opt/preceptor/bin:$PATH
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    --mount=type=bind,source=constraints.txt,target=/constraints.txt \
    pip install -c /constraints.txt "$(ls /wheels/*.whl)[$EXTRAS]"
RUN useradd --uid 1000 --create-home preceptor && install -d -m 777 /data
USER preceptor
# whoever the container runs as has a name and a home; downloads lie in the folder that is mounted
ENV HOME=/tmp USER=preceptor HF_HOME=/data/.cache/huggingface
WORKDIR /data
ENTRYPOINT ["preceptor"]
CMD ["--help"]

FROM nvidia/cuda:12.8.1-base-ubuntu24.04 AS cuda
ARG EXTRAS
ARG PIP_EXTRA_INDEX_URL
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,target=/var/lib/apt,sharing=locked \
    apt-get update && apt-get install --yes --no-install-recommends python3 python3-venv
RUN python3 -m venv /opt/preceptor
ENV PATH=/opt/preceptor/bin:$PATH
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    --mount=type=bind,source=constraints.txt,target=/constraints.txt \
    pip install -c /constraints.txt "$(ls /wheels/*.whl)[$EXTRAS]"
RUN userdel --remove ubuntu && useradd --uid 1000 --create-home preceptor && install -d -m 777 /data
USER preceptor
# whoever the container runs as has a name and a home; downloads lie in the folder that is mounted
ENV HOME=/tmp USER=preceptor HF_HOME=/data/.cache/huggingface
WORKDIR /data
ENTRYPOINT ["preceptor"]
CMD ["--help"]
