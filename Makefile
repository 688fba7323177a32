# The only entry point. Versions of tools: Go, controller-gen and setup-envtest are pinned in go.mod, Kubernetes and etcd of the
# test control plane in hack/controlplane/go.mod, and golangci-lint, which must not be built with our requirements, here.
GOLANGCI_LINT_VERSION := v2.15.0

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
IMG ?= grafana-secure-value-operator:dev
KUBECTL ?= kubectl
DOCKER ?= docker
# Where `make run` keeps the Secrets of cluster connections and the fingerprint key.
OPERATOR_NAMESPACE ?= default
# Further flags of the manager that `make run` starts.
ARGS ?=

GENERATED := api/v1alpha1/zz_generated.deepcopy.go config/crd/bases config/rbac/role.yaml
GOLANGCI_LINT := bin/golangci-lint-$(GOLANGCI_LINT_VERSION)

.DEFAULT_GOAL := help
.PHONY: help
help: ## Show this help.
	@awk 'BEGIN {FS = ":.*## "; print "Usage: make TARGET"} \
		/^## / {printf "\n%s\n", substr($$0, 4)} \
		/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

## See it, test it (needs Go, git and make)

.PHONY: demo
demo: envtest ## Show the operator at work, with a real API server and a stand-in for Grafana. DEMO_ONCE=1 ends it.
	@CGO_ENABLED=0 go run ./test/demo

.PHONY: test
test: envtest ## Run all tests, with the race detector if there is a C compiler. REQUIRE_RACE=1 requires one.
	@go run ./hack/gotest ./...

.PHONY: test-contract
test-contract: ## Run the contract tests against the Grafana of GRAFANA_URL, GRAFANA_TOKEN and GRAFANA_NAMESPACE.
	GRAFANA_CONTRACT=required go test ./internal/grafana/... -run TestContract -count=1 -v

.PHONY: envtest
envtest: ## Get kube-apiserver, etcd and kubectl for tests and demo, if they are not there yet.
	@go run ./hack/envtest >/dev/null

## Develop

.PHONY: generate
generate: ## Generate the DeepCopy methods.
	@go tool controller-gen object paths=./api/...

.PHONY: manifests
manifests: ## Generate the CRDs and the role of the manager.
	@go tool controller-gen crd paths=./api/... output:crd:dir=config/crd/bases
	@go tool controller-gen rbac:roleName=manager-role paths=./internal/... output:rbac:dir=config/rbac

.PHONY: verify
verify: generate manifests ## Fail if what is generated differs from what is committed.
	@git --no-pager diff --exit-code -- $(GENERATED)
	@new=$$(git ls-files --others --exclude-standard -- $(GENERATED)); \
		test -z "$$new" || { echo "Generated, but not committed: $$new"; exit 1; }

.PHONY: fmt
fmt: $(GOLANGCI_LINT) ## Format the code.
	@$(GOLANGCI_LINT) fmt

.PHONY: vet
vet: ## Run go vet.
	@go vet ./...

.PHONY: lint
lint: $(GOLANGCI_LINT) ## Run golangci-lint.
	@$(GOLANGCI_LINT) run

.PHONY: build
build: ## Build bin/manager.
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$(VERSION)" -o bin/manager ./cmd

.PHONY: docker-build
docker-build: ## Build the image IMG.
	$(DOCKER) build --build-arg GO_VERSION=$(shell go list -m -f '{{.GoVersion}}') --build-arg VERSION=$(VERSION) -t $(IMG) .

.PHONY: clean
clean: ## Remove bin/. The test control plane stays: other checkouts use it.
	rm -rf bin

## Use a cluster (the one of the current kubeconfig; needs kubectl)

.PHONY: install
install: ## Install the CRDs.
	$(KUBECTL) apply --server-side -k config/crd

.PHONY: uninstall
uninstall: ## Remove the CRDs. Delete their objects first, while a manager runs that can clean up in Grafana.
	$(KUBECTL) delete --ignore-not-found -k config/crd

.PHONY: run
run: ## Run the manager on this machine, with the Secrets of cluster connections in OPERATOR_NAMESPACE.
	CGO_ENABLED=0 go run -ldflags "-X main.version=$(VERSION)" ./cmd --operator-namespace=$(OPERATOR_NAMESPACE) $(ARGS)

.PHONY: deploy
deploy: ## Run the image IMG in the cluster, with CRDs and roles.
	$(KUBECTL) kustomize config/default | sed 's|image: grafana-secure-value-operator:dev$$|image: $(IMG)|' | \
		$(KUBECTL) apply --server-side -f -

.PHONY: undeploy
undeploy: ## Remove all that deploy has made. Delete the objects first, while the manager can clean up in Grafana.
	$(KUBECTL) delete --ignore-not-found -k config/default

# A name with the version, so that another version is another file and none is built twice.
$(GOLANGCI_LINT):
	@echo "Building golangci-lint $(GOLANGCI_LINT_VERSION), once for this checkout."
	@GOBIN=$(CURDIR)/bin/.new go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	@mv bin/.new/golangci-lint $@ && rmdir bin/.new
