# `mtl` in a container, for a training service (docs/cluster.md):
#   docker build -t mtl .                                      for processors
#   docker build -t mtl-gpu --build-arg EXTRAS=[gpu] .         with the CUDA libraries
# The tests lint this file and run its steps in a folder; an image was not built by them.
FROM python:3.11.13-slim-bookworm AS build
WORKDIR /source
COPY . .
RUN python -m pip install --no-cache-dir --constraint constraints.txt build==1.6.1 setuptools==84.2.1 \
    && python -m build --wheel --no-isolation

FROM python:3.11.13-slim-bookworm
ARG EXTRAS=""
WORKDIR /opt/mtl
COPY --from=build /source/dist /source/constraints.txt ./
RUN for wheel in *.whl; do python -m pip install --no-cache-dir --constraint constraints.txt "$wheel$EXTRAS"; done
# A user without a name and a home; what is asked for them finds these.
ENV HOME=/tmp LOGNAME=mtl PYTHONUNBUFFERED=1
WORKDIR /tmp
USER 1000:1000
ENTRYPOINT ["mtl"]
CMD ["--help"]
