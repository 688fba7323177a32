# `make docker-build` passes the version that go.mod pins.
ARG GO_VERSION=1.26
# Give a digest, as in BASE=gcr.io/distroless/static@sha256:..., for an image that can be built again.
ARG BASE=gcr.io/distroless/static:nonroot

FROM --platform=$BUILDPLATFORM golang:${GO_VERSION} AS build
ARG TARGETOS
ARG TARGETARCH
ARG VERSION=dev
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY api api
COPY cmd cmd
COPY internal internal
RUN CGO_ENABLED=0 GOOS=${TARGETOS} GOARCH=${TARGETARCH} \
    go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=${VERSION}" -o /manager ./cmd

FROM ${BASE}
COPY --from=build /manager /manager
USER 65532:65532
ENTRYPOINT ["/manager"]
