# meta-ood on Debian 12 (Python 3.11), for the CPU:   docker build -t meta-ood .
# with CUDA:   docker build -t meta-ood:cuda --build-arg TORCH_INDEX=https://pypi.org/simple .
FROM debian:bookworm-slim AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# the slow steps first: a change of the code repeats none of them
COPY constraints.txt /src/
COPY docker/steps.sh /src/docker/
RUN sh /src/docker/steps.sh build
RUN sh /src/docker/steps.sh torch
COPY . /src
RUN sh /src/docker/steps.sh package

FROM debian:bookworm-slim
COPY docker/steps.sh /tmp/docker/
RUN sh /tmp/docker/steps.sh run && rm -r /tmp/docker
COPY --from=build /opt/meta-ood /opt/meta-ood
# a mounted repository has another owner, at which git stops
ENV PATH=/opt/meta-ood/bin:$PATH PYTHONPYCACHEPREFIX=/tmp/pycache MLFLOW_DISABLE_TELEMETRY=true \
    GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0=*
USER meta-ood
WORKDIR /work
ENTRYPOINT ["meta-ood"]
CMD ["--help"]
