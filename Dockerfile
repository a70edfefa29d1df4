# The image of every role of a cluster: mochi coordinator, mochi replica,
# mochi status. make images builds it, also where no base image can be pulled.

# Where the program is compiled; any image will do with PREBUILT. Give both by their
# digests (golang:1.26-bookworm@sha256:…) where an image must be what it was.
ARG BUILDER=golang:1.26-bookworm
# Where it runs.
ARG BASE=debian:bookworm-slim
FROM $BUILDER AS build
# What make build takes where the libraries are installed; empty: pure Go.
ARG ENGINES="onednn turbojpeg libdeflate simd"
# Set when the build context holds bin/mochi, compiled on a Debian of the same
# release: it is taken as it is, which saves minutes.
ARG PREBUILT=
RUN test -n "$PREBUILT" -o -z "$ENGINES" || test -e /usr/include/dnnl.h -a -e /usr/include/jpeglib.h -a -e /usr/include/libdeflate.h || { \
      apt-get update && \
      apt-get install -y --no-install-recommends libdnnl-dev libjpeg62-turbo-dev libdeflate-dev && \
      rm -rf /var/lib/apt/lists/*; }
# Empty: Go's defaults.
ARG GOPROXY=
ARG GOSUMDB=
WORKDIR /src
COPY go.mod go.sum ./
# Set when the build context holds vendor/.
ARG VENDORED=
RUN test -n "$PREBUILT" -o -n "$VENDORED" || go mod download
COPY . .
ARG VERSION=dev
RUN if test -n "$PREBUILT"; then cp bin/mochi /mochi; exit; fi; \
    CGO_ENABLED=$(test -z "$ENGINES" && echo 0 || echo 1) go build -tags "$ENGINES" -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$VERSION" -o /mochi ./cmd/mochi

FROM $BASE
# The libraries of the engines and the demonstration data, unless the base
# image has them.
RUN test -d /usr/share/datasets/fashion-mnist -a -e /usr/lib/*/libdnnl.so.2 -a -e /usr/lib/*/libjpeg.so.62 -a -e /usr/lib/*/libdeflate.so.0 || { \
      apt-get update && \
      apt-get install -y --no-install-recommends libdnnl2 libjpeg62-turbo libdeflate0 dataset-fashion-mnist && \
      rm -rf /var/lib/apt/lists/*; }
COPY --from=build /mochi /usr/local/bin/mochi
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /state mochi && \
    install -d -o mochi -g mochi -m 0700 /state /token /keys /cache
USER mochi
WORKDIR /state
ENV XDG_CACHE_HOME=/cache
# Where mochi status asks; a replica's container is told its coordinator.
ENV MOCHI_JOIN=nats://127.0.0.1:4222
# About this process alone: stopped, or dead and not collected, it is not healthy.
# (A coordinator that answers is asked for in docker-compose.yml.)
HEALTHCHECK --interval=15s --timeout=10s --start-period=30s --retries=4 \
  CMD grep -q '^State:.[RSD]' /proc/1/status
EXPOSE 4222
ENTRYPOINT ["mochi"]
CMD ["--help"]
