# make help lists the targets.

# Build tags of what needs cgo: onednn (the fast CPU engine), turbojpeg (JPEG),
# libdeflate (PNG) and simd (views in C, which needs no library). Those whose headers are
# installed, unless given; `make build ENGINES=` is pure Go, without cgo.
has = $(shell printf '\#include <stdio.h>\n\#include <$(1)>\n' | $${CC:-gcc} -E -x c - >/dev/null 2>&1 && echo $(2))
ifeq ($(origin ENGINES),undefined)
ENGINES := $(strip $(call has,dnnl.h,onednn) $(call has,jpeglib.h,turbojpeg) $(call has,libdeflate.h,libdeflate) $(call has,stdlib.h,simd))
endif

# Same source and version, same bytes: replicas of another build than the
# coordinator's are refused.
VERSION ?= $(shell git describe --always --dirty --abbrev=12 2>/dev/null || echo dev)

# One set of flags for build, tests and linters, so that they share what is
# compiled.
export CGO_ENABLED := $(if $(strip $(ENGINES)),1,0)
export GOFLAGS     := -trimpath -buildvcs=false

# Where several goroutines meet; the race detector costs 5 to 25 times.
RACE := ./allreduce/... ./coordinator/... ./replica/...
# Of those, what takes longest and is about bits rather than goroutines, or does once more
# what others of its package do, with other numbers (the histories of TestExhaustive).
RACE_SKIP := ^Test(GroupsAtOnceAgree|AuditsChangeNothing|ProbeChangesNothing|InfinityOfOneMember|WrongBitsAndOtherTrouble|FoundAtTheDefault|Exhaustive)$$
# Of the whole-program tests, those in which most happens at once. All of them
# run under the race detector in test-long.
RACE_PROGRAM := KilledMemberAndJoiner|CoordinatorRestarts

# Of the whole-program tests, those with an engine of this machine.
ENGINE_PROGRAM := Engine|Precision|ReplicasAgree|EveryFaultAtOnce|Bench

.PHONY: help deps build demo test test-pure test-race test-engines test-fuzz test-gpu build-gpu gpucheck lint bench images images-gpu compose-test clean

help: ## this list
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 15

deps: ## install the Debian packages that are missing (sudo when not root)
	@bash tools/deps.sh

build: ## bin/mochi
	go build -tags '$(ENGINES)' -ldflags '-s -w -X main.version=$(VERSION)' -o bin/mochi ./cmd/mochi

# Where the demonstration leaves its RUN folder, and on what it trains.
OUT  ?= runs/demo
DATA ?= fashion-mnist

demo: deps ## train on Fashion-MNIST with two replicas, kNN before and after (a few minutes)
	@$(MAKE) --no-print-directory build # now that deps may have brought an engine
	bin/mochi train --preset demo --data $(DATA) --replicas 2 --resume never --out $(OUT)

test: deps ## everything without cgo, what is concurrent under the race detector, then what needs cgo
	@$(MAKE) --no-print-directory test-pure
	@$(MAKE) --no-print-directory test-race
	@$(MAKE) --no-print-directory test-engines
	@$(MAKE) --no-print-directory test-fuzz

test-pure:
	CGO_ENABLED=0 go build ./...
	CGO_ENABLED=0 go vet ./...
	CGO_ENABLED=0 go test -timeout 30m ./...

test-race:
	CGO_ENABLED=1 go test -race -timeout 30m -skip '$(RACE_SKIP)' $(RACE)
	CGO_ENABLED=1 go test -race -timeout 30m -run '$(RACE_PROGRAM)' ./cmd/...

# With the tags of this machine: the packages that hold C, then the programs in
# which they meet.
test-engines:
ifneq ($(ENGINES),)
	CGO_ENABLED=1 go test -timeout 30m -tags '$(ENGINES) testhooks' ./model/engine/onednn/... ./model/loss ./replica/data/... ./replica/augment/...
	CGO_ENABLED=1 go test -timeout 30m -tags '$(ENGINES)' -run '$(ENGINE_PROGRAM)' ./cmd/...
endif

.PHONY: test-asan
test-asan: ## the engine's C under the address sanitizer (some minutes)
	CGO_ENABLED=1 go test -asan -timeout 30m -tags onednn,testhooks ./model/engine/onednn/...

# How long each fuzz test looks for something new.
FUZZTIME ?= 30s

# How long the readers of files and messages are fuzzed, each.
FUZZERS_TIME ?= 5s

test-fuzz: ## every reader of files and messages, fuzzed for 5 s, two at a time (FUZZERS_TIME=10m)
	bash tools/fuzz.sh '$(FUZZERS_TIME)' '$(ENGINES)'

.PHONY: test-s3
test-s3: ## what reads from a real S3 server, which is built first (some minutes the first time)
	bash tools/s3server/build.sh
	CGO_ENABLED=0 go test -count=1 -run S3 -v ./replica/data/remote ./cmd/mochi

.PHONY: test-long
test-long: deps ## what CI has no time for: soaks, fuzzing, all programs under the race detector, the address sanitizer, the image as users build it (an hour or more)
	MOCHI_SHAPES=10000 CGO_ENABLED=1 go test -timeout 60m -tags '$(ENGINES)' -run RandomShapes ./model/loss
	MOCHI_LONG=1 CGO_ENABLED=0 go test -timeout 30m -run SpreadQueueSurvivesKills ./cmd/mochi
	MOCHI_LONG=1 go test -timeout 30m -tags '$(ENGINES)' -run FlippedBitIsNamed ./cmd/mochi
	MOCHI_LONG=1 CGO_ENABLED=0 go test -timeout 90m -run TestChance ./coordinator/clustertest
	CGO_ENABLED=0 go test -timeout 60m -run TestLongRun -v ./cmd/mochi/run -longrun.steps=5000000
	$(MAKE) --no-print-directory test-s3
	go run ./tools/mutations
	CGO_ENABLED=1 go test -race -timeout 60m ./cmd/...
	bash tools/fuzz.sh '$(FUZZTIME)' '$(ENGINES)' .
ifneq ($(filter onednn,$(ENGINES)),)
	$(MAKE) --no-print-directory test-asan
endif
	bash tools/deps.sh images
	bash tools/images/with-daemon.sh bash tools/compose-test.sh whole

# How long a cluster is treated badly, and what draws how; more flags of the tool.
CHAOS_TIME ?= 2m
CHAOS_SEED ?= 1
CHAOS_FLAGS ?=

.PHONY: chaos
chaos: build ## a cluster of processes, killed, stopped, cut off; then its promises are checked (CHAOS_TIME=1h CHAOS_SEED=7)
	go run ./tools/chaos run --mochi bin/mochi --time $(CHAOS_TIME) --seed $(CHAOS_SEED) $(CHAOS_FLAGS)

# Where the page about it goes, and what run.py is told besides: --only steps.
DOC            ?=
FIDELITY_FLAGS ?=

.PHONY: fidelity
fidelity: build ## mochi beside PyTorch, torchvision, Pillow and scikit-learn: figures, tolerances (10 minutes; DOC=docs/fidelity.md writes the page)
	bash tools/fidelity/run.sh bin/mochi '$(ENGINES)' --commit '$(VERSION)' $(if $(DOC),--doc '$(DOC)') $(FIDELITY_FLAGS)

.PHONY: fidelity-faults
fidelity-faults: build ## five known faults, one at a time in a copy: each must make the comparison fail (some minutes)
	bash tools/fidelity/run.sh bin/mochi '$(ENGINES)' --faults

# Where CUDA's headers are: a toolkit's folder, Debian's package, or what
# tools/deps.sh gpu unpacks. The driver is not linked (see
# model/engine/cuda/driver).
CUDA ?= $(firstword $(patsubst %/include/cuda.h,%,$(wildcard /usr/local/cuda/include/cuda.h /usr/include/cuda.h $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/mochi/cuda/include/cuda.h)))
GPU = CGO_ENABLED=1 CGO_CFLAGS='-O2 -g -I$(CUDA)/include' \
	CGO_LDFLAGS='-L$(CUDA)/lib64/stubs -L$(CUDA)/lib/x86_64-linux-gnu/stubs -Wl,--as-needed' MOCHI_TEST_GPU=1

test-gpu: ## the CUDA engine, as far as it can be tested without a GPU
	@bash tools/deps.sh gpu
	@$(MAKE) --no-print-directory test-gpu-only # now that deps may have brought the headers

# The own kernels as PTX, to be embedded, where this machine has an NVRTC.
.PHONY: ptx
ptx:
	@$(GPU) go run -tags gpu ./tools/ptx model/engine/cuda/fallback/ptx

.PHONY: test-gpu-only
test-gpu-only: ptx
	$(GPU) go vet -tags gpu ./model/engine/cuda/... ./model/loss ./cmd/... ./tools/ptx
	$(GPU) go test -timeout 30m -tags gpu $$(go list ./model/engine/cuda/... | grep -v '/cuda/kernel$$') ./model/loss
	$(GPU) go test -timeout 30m -tags gpu -run '^TestNVRTC$$' ./model/engine/cuda/kernel # the others run on the CPU, in test-pure
	$(GPU) go test -timeout 30m -tags gpu -run '^TestGPU$$' ./cmd/mochi
	@$(MAKE) --no-print-directory gpucheck-only
	bash tools/gpucheck/test.sh bin/gpucheck.tar.gz

build-gpu: ## bin/mochi with the CUDA engine too (needs no GPU, and starts without one)
	@bash tools/deps.sh gpu
	@$(MAKE) --no-print-directory build-gpu-only

gpucheck: ## bin/gpucheck.tar.gz: what checks the CUDA engine on a machine with a GPU
	@bash tools/deps.sh gpu
	@$(MAKE) --no-print-directory gpucheck-only

.PHONY: build-gpu-only gpucheck-only
build-gpu-only: ptx
	$(GPU) go build -tags 'gpu $(ENGINES)' -ldflags '-s -w -X main.version=$(VERSION)' -o bin/mochi ./cmd/mochi

gpucheck-only: ptx
	$(GPU) VERSION='$(VERSION)' bash tools/gpucheck/pack.sh bin/gpucheck.tar.gz

bench: build ## one training step, the loss, the all-reduce and the input pipeline
	bin/mochi bench step --arch resnet8 --image-size 28 --batch 32 --bn-group 32 --queue 4096 --mochi 256,256,32 --steps 10
	bin/mochi bench loss --batch 32 --queue 16384 --dim 128 --mochi 1024,1024,128 --iterations 10
	bin/mochi bench allreduce --world 2 --bytes 16777216 --wire fp32 --transport inproc --iterations 10
	bin/mochi bench allreduce --world 2 --bytes 16777216 --wire bf16 --transport nats --iterations 10
	bin/mochi bench input --data fashion-mnist --recipe cifar --size 28 --seconds 3

# The linters are a module of their own, with what they must find in one file:
# tools/lint/lint.toml. They are built without cgo, as the packages they share
# with the tests are.
lint: ## gofmt, go vet, linters and the rules of tools/lint/lint.toml, links of documents, shell syntax
	@test -z "$$(gofmt -l .)" || { echo "gofmt -w these:"; gofmt -l .; exit 1; }
	@for f in .ci/run tools/*.sh tools/*/*.sh; do bash -n $$f || exit 1; done
	go vet -tags '$(ENGINES)' ./...
	CGO_ENABLED=0 go -C tools/lint vet .
	CGO_ENABLED=0 go -C tools/lint test .
	CGO_ENABLED=0 go -C tools/lint build -o $(CURDIR)/bin/lint/ . tool
	bin/lint/lint -tags '$(ENGINES)'

images: ## container image mochi:latest, and base images where none can be pulled
	VERSION='$(VERSION)' bash tools/images/build.sh

images-gpu: ## container image mochi:gpu, with the CUDA engine
	VERSION='$(VERSION)' bash tools/images/build.sh gpu

compose-test: ## a cluster in containers: scale up, kill one, scale down (needs a docker daemon)
	bash tools/compose-test.sh

clean: ## remove what build made; runs/ stays
	rm -rf bin
