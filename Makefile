# make help lists the targets.

# Build tags of engines besides gorgonia, which is always in. Empty: pure Go,
# without cgo.
ENGINES ?=

# Same source and version, same bytes: replicas of another build than the
# coordinator's are refused.
VERSION ?= $(shell git describe --always --dirty --abbrev=12 2>/dev/null || echo dev)
CGO     := $(if $(strip $(ENGINES)),1,0)
BUILD   := CGO_ENABLED=$(CGO) go build -trimpath -buildvcs=false -tags '$(ENGINES)' -ldflags '-s -w -X main.version=$(VERSION)'

# Where several goroutines meet; the race detector costs 5 to 25 times.
RACE := ./allreduce/... ./coordinator/... ./replica/... ./cmd/...

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: help deps build demo test lint bench images compose-test clean

help: ## this list
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 15

deps: ## install the Debian packages that are missing (sudo when not root)
	@bash tools/deps.sh

build: ## bin/mochi
	$(BUILD) -o bin/mochi ./cmd/mochi

lint: ## gofmt, go vet, staticcheck, shell syntax
	@test -z "$$(gofmt -l .)" || { echo "gofmt -w these:"; gofmt -l .; exit 1; }
	go vet ./...
	go run $(STATICCHECK) ./...
	@for f in .ci/run tools/*.sh tools/images/*.sh; do bash -n $$f || exit 1; done

images: ## container image mochi:latest, and base images where none can be pulled
	VERSION=$(VERSION) bash tools/images/build.sh

compose-test: ## a cluster in containers: scale up, kill one, scale down
	bash tools/compose-test.sh

clean: ## remove what build made; runs/ stays
	rm -rf bin
