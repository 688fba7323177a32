# The only entry point. Versions of tools: Go, ginkgo, gotestsum, controller-gen and setup-envtest are pinned in go.mod, Kubernetes and
# etcd of the test control plane, helm-unittest and promtool in the go.mod of their directories in hack, and what must not be built with
# our requirements and needs none of its own, here.
GOLANGCI_LINT_VERSION := v2.15.0
HELM_VERSION := v4.3.1
HELM3_VERSION := v3.22.0
ACTIONLINT_VERSION := v1.7.12
CRD_REF_DOCS_VERSION := v0.3.0
HELM_DOCS_VERSION := v1.14.2
CYCLONEDX_VERSION := v1.10.0
COSIGN_VERSION := v3.1.3
GOVULNCHECK_VERSION := v1.9.0
VALE_VERSION := v3.21.0

# A failed command in a pipe fails its recipe.
SHELL = /usr/bin/env bash -o pipefail
.SHELLFLAGS = -ec

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
IMG ?= grafana-secure-value-operator:dev
KUBECTL ?= kubectl
DOCKER ?= docker
# Where `make run` keeps the Secrets of cluster connections and the fingerprint key.
OPERATOR_NAMESPACE ?= default
# The manager fills it, but may not create it.
KEY_SECRET := grafana-secure-value-operator-fingerprint
# Further flags of the manager that `make run` starts.
ARGS ?=

CHART := charts/grafana-secure-value-operator
GENERATED := api/v1alpha1/zz_generated.deepcopy.go config/crd/bases config/rbac/role.yaml config/prometheus \
	$(CHART)/files/crds $(CHART)/files/role.yaml $(CHART)/README.md docs/reference/api.md
GOLANGCI_LINT := bin/golangci-lint-$(GOLANGCI_LINT_VERSION)
HELM := bin/helm-$(HELM_VERSION)
HELM3 := bin/helm-$(HELM3_VERSION)
ACTIONLINT := bin/actionlint-$(ACTIONLINT_VERSION)
VALE := bin/vale-$(VALE_VERSION)
CRD_REF_DOCS := bin/crd-ref-docs-$(CRD_REF_DOCS_VERSION)
HELM_DOCS := bin/helm-docs-$(HELM_DOCS_VERSION)
RENDER = $(KUBECTL) kustomize config/default | sed 's|image: grafana-secure-value-operator:dev$$|image: $(IMG)|'
HELM_UNITTEST := bin/helm-unittest-$(shell sed -n 's|.*github.com/helm-unittest/helm-unittest \(v[^ ]*\).*|\1|p' hack/helm-unittest/go.mod)
PROMTOOL := bin/promtool-$(shell sed -n 's|.*github.com/prometheus/prometheus \(v[^ ]*\).*|\1|p' hack/promtool/go.mod)
GRAFANA_APISERVER := bin/grafana-apiserver

# What help shows first, in this order.
EVERYDAY := demo test lint fmt generate manifests verify build

.DEFAULT_GOAL := help
.PHONY: help
help: ## Show this help.
	@awk 'BEGIN {FS = ":.*## "; n = split("$(EVERYDAY)", first, " "); for (i in first) shown[first[i]] = 1} \
		/^## / {rest = rest "\n" substr($$0, 4) "\n"} \
		/^[a-z-]+:.*## / {text[$$1] = sprintf("  %-15s %s\n", $$1, $$2); if (!($$1 in shown)) rest = rest text[$$1]} \
		END {print "Usage: make TARGET\n\nEvery day (needs Go, git and make)"; for (i = 1; i <= n; i++) printf "%s", text[first[i]]; printf "%s", rest}' \
		$(firstword $(MAKEFILE_LIST))

## Test a part, or more (needs Go, git and make)

# Ctrl-C ends the demo without an error of make. "go run" would print an exit status, and the shell would not pass on a SIGTERM.
DEMO = trap 'exit 0' INT; echo "Building the demo, in a minute or two the first time."; \
	CGO_ENABLED=0 go build -buildvcs=false -o bin/ ./hack/envtest ./test/demo; bin/envtest >/dev/null; exec bin/demo

.PHONY: demo
demo: ## Show the operator at work, with a real API server and a fake Grafana. DEMO_ONCE=1 ends it.
	@$(DEMO)

.PHONY: demo-recording
demo-recording: ## Record the demo as docs/demo.cast, and draw it as docs/demo.svg.
	@export DEMO_ONCE=1; $(DEMO) -record bin/demo.cast
	@bin/demo -draw bin/demo.cast > bin/demo.svg
	@mv bin/demo.cast bin/demo.svg docs/

# The Kubernetes of tests and demo: a supported minor version, for example 1.34, or oldest. Empty for the newest.
K8S ?=
export K8S

# In how many processes test/integration runs, each with a control plane of its own.
PROCESSES ?= 4

# Go enables cgo where there is a C compiler. With REQUIRE_RACE=1, go test fails without one.
RACE ?= $(if $(filter 1,$(REQUIRE_RACE) $(shell go env CGO_ENABLED)),-race)
SUMMARIZED = GINKGO_NO_COLOR=1 go tool gotestsum --format standard-verbose
GOTESTSUM = $(SUMMARIZED) -- $(RACE)
# The lines to show: the summary at the end, attributes of tests, results of packages, and the number of specs.
SUMMARY := sed -E -e '/^(=== (Skipped|Failed|Errors)|DONE )/,$$b' -e 's/^=== ATTR +[^ ]+ //;t' \
	-e '/^(ok|FAIL)[[:space:]]/b' -e '/Ran [0-9]+ of [0-9]+ Specs? in/b' -e d

.PHONY: test
test: tools ## Run all tests, with the race detector where they run in parallel. REQUIRE_RACE=1 fails without a C compiler for it.
	@PROCESSES=$(PROCESSES) $(SUMMARIZED) --raw-command -- hack/test-json $(RACE) -timeout 40m | $(SUMMARY)

# The specs that show whether an API server does what the operator needs: the life and the owner of a value, every right, the installation.
OLDEST := -ginkgo.focus-file='(integration/(lifecycle|ownership|rights)|install/(helm|kubectl))_test.go' \
	-ginkgo.skip='1,000 objects'

.PHONY: test-oldest
test-oldest: export K8S := $(or $(K8S),oldest)
test-oldest: export CGO_ENABLED := 0
test-oldest: RACE :=
test-oldest: tools ## Run a part of the tests, and the demo, on the oldest Kubernetes. With K8S=1.34, on that one.
	@$(GOTESTSUM) ./api/... ./test/controlplane | $(SUMMARY)
	@$(GOTESTSUM) -timeout 20m ./test/integration ./test/install -args $(OLDEST) | $(SUMMARY)
	@DEMO_ONCE=1 go run ./test/demo >/dev/null && echo "The demo passed."

.PHONY: test-chart
test-chart: tools ## Run only the tests of the Helm chart.
	@$(GOTESTSUM) ./test/chart | $(SUMMARY)

.PHONY: test-install
test-install: tools ## Run only the installation tests: install, upgrade and remove it with the real helm, kubectl and kube-apiserver.
	@$(GOTESTSUM) ./test/install | $(SUMMARY)

.PHONY: soak
soak: ## Run SEEDS (1000) more random histories of each kind, in process and in fake time. It reports every hundredth, and how to repeat one that fails.
	go test ./internal/controller/securevalue -run 'Histories$$' -count=1 -timeout 0 -v -rapid.checks=$(or $(SEEDS),1000)

.PHONY: soak-histories
soak-histories: envtest ## Run HISTORIES (1) times 100 random histories with a real API server. The tests run 30 fixed ones.
	@for i in $$(seq $(or $(HISTORIES),1)); do HISTORIES_SEED=$$(date +%s%N) \
		go test ./test/integration -count=1 -timeout 1h -ginkgo.focus 'Random histories' || exit 1; done

.PHONY: soak-restarts
soak-restarts: envtest ## Restart the manager RESTARTS (50) times while Secrets change, in some minutes. The tests do it ten times.
	RESTARTS=$(or $(RESTARTS),50) go test ./test/integration -count=1 -timeout 1h -ginkgo.focus 'Rolling restarts'

.PHONY: fuzz
fuzz: ## Fuzz each target for FUZZTIME (10s).
	@for package in internal/grafana internal/source; do \
		for target in $$(sed -n 's/^func \(Fuzz[A-Za-z]*\)(.*/\1/p' $$package/*_test.go); do \
			go test ./$$package -run '^$$' -fuzz "^$$target$$" -fuzztime $(or $(FUZZTIME),10s) || exit 1; done; done

.PHONY: test-contract
test-contract: ## Check the Grafana of GRAFANA_URL, GRAFANA_TOKEN and GRAFANA_NAMESPACE, and print a report.
	@CGO_ENABLED=0 go build -buildvcs=false -o bin/ ./test/contract
	@bin/contract

.PHONY: test-live
test-live: envtest ## Run the operator against that Grafana: create, rotate, move, adopt, correct and delete. Kubernetes is that of the tests.
	@GRAFANA_LIVE=1 $(GOTESTSUM) -count=1 ./test/integration -args -ginkgo.focus 'Another Grafana' | $(SUMMARY) | sed '/^rights /d'

.PHONY: tools
tools: envtest $(HELM) $(HELM3) $(HELM_UNITTEST) $(PROMTOOL) $(GRAFANA_APISERVER) ## Get the tools of the tests: the control plane, helm 4 and 3, helm-unittest, promtool and the second fake Grafana.

.PHONY: envtest
envtest: ## Get kube-apiserver, etcd and kubectl for tests and demo, if they are missing.
	@go run ./hack/envtest >/dev/null

## Develop

.PHONY: generate
generate: ## Generate the DeepCopy methods.
	@go tool controller-gen object paths=./api/...

.PHONY: manifests
manifests: $(CRD_REF_DOCS) $(HELM_DOCS) ## Generate CRDs, the role of the manager, copies, and reference pages.
	@go tool controller-gen crd paths=./api/... output:crd:dir=config/crd/bases
	@go tool controller-gen rbac:roleName=manager-role paths=./internal/... output:rbac:dir=config/rbac
	@rm -rf $(CHART)/files/crds && cp -R config/crd/bases $(CHART)/files/crds && cp config/rbac/role.yaml $(CHART)/files/role.yaml
	@$(HELM_DOCS) --log-level=warning --chart-search-root=$(CHART) --sort-values-order=file
	@$(CRD_REF_DOCS) --log-level=ERROR --source-path=api/v1alpha1 --config=hack/crd-ref-docs/config.yaml \
		--templates-dir=hack/crd-ref-docs/templates --renderer=markdown --output-path=docs/reference/api.md
	@{ sed '/^spec:$$/q' config/prometheus/prometheusrule.yaml; sed -n '/^groups:$$/,$$ s/^/  /p' $(CHART)/files/alerts.yaml; } > bin/.rule
	@mv bin/.rule config/prometheus/prometheusrule.yaml

.PHONY: verify
verify: generate manifests ## Fail if generated files differ from the committed ones.
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
lint: $(GOLANGCI_LINT) $(ACTIONLINT) ## Run golangci-lint on the code, actionlint on the workflows, and vale on the words of the pages.
	@$(GOLANGCI_LINT) run
	@cd hack/grafana-apiserver && $(CURDIR)/$(GOLANGCI_LINT) run
	@$(ACTIONLINT) -shellcheck= -pyflakes=
	@$(MAKE) --no-print-directory lint-pages

# Building vale needs a C compiler.
.PHONY: lint-pages
ifeq ($(shell go env CGO_ENABLED),1)
lint-pages: $(VALE) ## Run vale alone.
	@$(VALE) --config=hack/vale/vale.ini README.md CONTRIBUTING.md SECURITY.md CHANGELOG.md docs
else
lint-pages:
	@echo "The words of the pages were not checked: vale needs a C compiler."
endif

.PHONY: vulncheck
vulncheck: ## Look for known vulnerabilities in what the manager calls. It asks the database of Go.
	@go run golang.org/x/vuln/cmd/govulncheck@$(GOVULNCHECK_VERSION) ./...

.PHONY: build
build: ## Build bin/manager.
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$(VERSION)" -o bin/manager ./cmd

.PHONY: build-plugin
build-plugin: ## Build bin/kubectl-gsv, the kubectl plugin.
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$(VERSION)" -o bin/kubectl-gsv ./cmd/kubectl-gsv

.PHONY: docker-build
docker-build: ## Build the image IMG, for example YOUR-REGISTRY/grafana-secure-value-operator:0.1.0. Push it with `docker push`.
	$(DOCKER) build --build-arg VERSION=$(VERSION) -t $(IMG) .

.PHONY: build-installer
build-installer: ## Write dist/install.yaml: CRDs, roles and the manager with the image IMG, which the cluster must be able to pull.
	@mkdir -p dist
	$(RENDER) > dist/install.yaml

.PHONY: clean
clean: ## Remove bin/ and dist/. The test control plane stays: other checkouts use it.
	rm -rf bin dist

## Release (what the workflow of a tag calls, with VERSION=v1.2.3)

REGISTRY := ghcr.io/securevalues-io
REGISTRY_HOST := $(firstword $(subst /, ,$(REGISTRY)))
RELEASE = $(VERSION:v%=%)
RELEASE_IMG = $(REGISTRY)/grafana-secure-value-operator
CYCLONEDX := go run github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@$(CYCLONEDX_VERSION)
COSIGN := go run github.com/sigstore/cosign/v3/cmd/cosign@$(COSIGN_VERSION)

.PHONY: sbom
sbom: ## Write dist/sbom.cdx.json: the modules of the manager.
	@mkdir -p dist
	@$(CYCLONEDX) app -json -licenses -main cmd -output dist/sbom.cdx.json .

# What the plugin is built for.
PLATFORMS := linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64 windows/arm64
PLUGIN_URL := https://github.com/securevalues-io/grafana-secure-value-operator/releases/download

.PHONY: release-plugin
release-plugin: ## Build kubectl-gsv for each of PLATFORMS, and write the archives and their manifest for krew into dist/.
	@rm -rf dist/plugin && mkdir -p dist/plugin && sed '1,2d; s|VERSION|$(VERSION)|' config/krew/gsv.yaml > dist/gsv.yaml
	@for platform in $(PLATFORMS); do os=$${platform%/*} arch=$${platform#*/} name=kubectl-gsv; \
		if [ $$os = windows ]; then name=kubectl-gsv.exe; fi; \
		CGO_ENABLED=0 GOOS=$$os GOARCH=$$arch go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$(VERSION)" \
			-o dist/plugin/$$name ./cmd/kubectl-gsv; \
		cp LICENSE dist/plugin/; archive=kubectl-gsv_$${os}_$$arch.tar.gz; \
		tar --create --gzip --file dist/$$archive --directory dist/plugin --owner=0 --group=0 --numeric-owner --mtime=@0 $$name LICENSE; rm dist/plugin/$$name; \
		printf '  - selector: {matchLabels: {os: %s, arch: %s}}\n    uri: $(PLUGIN_URL)/$(VERSION)/%s\n    sha256: %s\n    bin: %s\n' \
			$$os $$arch $$archive $$(sha256sum dist/$$archive | cut -d' ' -f1) $$name >> dist/gsv.yaml; done
	@rm -rf dist/plugin

.PHONY: release-files
release-files: sbom release-plugin $(HELM) ## Write the release files that name the image by its DIGEST, and their checksums, into dist/.
	@echo '$(DIGEST)' | grep -qxE 'sha256:[0-9a-f]{64}' || { echo 'DIGEST is "$(DIGEST)", and not that of an image'; exit 1; }
	@$(MAKE) build-installer IMG=$(RELEASE_IMG):$(RELEASE)@$(DIGEST)
	@rm -rf dist/chart && cp -R $(CHART) dist/chart && sed -i -e 's|^  digest: ""$$|  digest: $(DIGEST)|' \
		-e 's|^  registry: ""$$|  registry: $(REGISTRY_HOST)|' -e 's|^  repository: ""$$|  repository: $(RELEASE_IMG:$(REGISTRY_HOST)/%=%)|' \
		dist/chart/values.yaml
	@$(HELM) package dist/chart --version $(RELEASE) --app-version $(RELEASE) --destination dist && rm -rf dist/chart
	@cd dist && sha256sum install.yaml sbom.cdx.json grafana-secure-value-operator-$(RELEASE).tgz gsv.yaml kubectl-gsv_*.tar.gz > checksums.txt

.PHONY: release-login
release-login: $(HELM) ## Log in to the registry as REGISTRY_USER, with REGISTRY_TOKEN.
	@printenv REGISTRY_TOKEN | $(DOCKER) login $(REGISTRY_HOST) --username "$$REGISTRY_USER" --password-stdin
	@printenv REGISTRY_TOKEN | $(HELM) registry login $(REGISTRY_HOST) --username "$$REGISTRY_USER" --password-stdin

.PHONY: release-build
release-build: sbom $(HELM) ## Build and push image and chart, and write the release files and the digests into dist/. It needs docker with buildx.
	$(DOCKER) buildx build --platform linux/amd64,linux/arm64 --sbom=true --provenance=mode=max --push --metadata-file dist/image.json \
		--build-arg VERSION=$(VERSION) --tag $(RELEASE_IMG):$(RELEASE) .
	@sed -n 's/.*"containerimage.digest": "\(sha256:[0-9a-f]*\)".*/\1/p' dist/image.json > dist/image.digest
	@$(MAKE) release-files DIGEST=$$(cat dist/image.digest)
	$(HELM) push dist/grafana-secure-value-operator-$(RELEASE).tgz oci://$(REGISTRY)/charts 2>&1 | tee dist/chart.log
	@sed -n 's/^Digest: //p' dist/chart.log > dist/chart.digest

.PHONY: release-sign
release-sign: ## Sign what release-build pushed and wrote, and create the release. It needs an identity for cosign, and gh.
	@for file in image.digest chart.digest; do \
		grep -qxE 'sha256:[0-9a-f]{64}' dist/$$file || { echo "dist/$$file has no digest"; exit 1; }; done
	$(COSIGN) sign --yes $(RELEASE_IMG)@$$(cat dist/image.digest)
	$(COSIGN) sign --yes $(REGISTRY)/charts/grafana-secure-value-operator@$$(cat dist/chart.digest)
	$(COSIGN) sign-blob --yes --bundle dist/checksums.txt.sigstore.json dist/checksums.txt
	gh release create $(VERSION) --verify-tag --notes-file CHANGELOG.md dist/install.yaml dist/sbom.cdx.json dist/checksums.txt \
		dist/checksums.txt.sigstore.json dist/grafana-secure-value-operator-$(RELEASE).tgz dist/gsv.yaml dist/kubectl-gsv_*.tar.gz

## Measure it (on Linux; see docs/performance.md#measure-it)

# Scenarios with commas between them, for example cold-start,restart; none for all; objects; runs; and further flags, as -help lists them.
SCENARIO ?=
N ?= 10000
RUNS ?= 1
GROWTH ?= 100,1000,10000,50000
BENCHFLAGS ?=

.PHONY: bench
bench: envtest ## Measure time, memory and calls with N objects: all scenarios, or those of SCENARIO.
	@CGO_ENABLED=0 go run ./test/bench -scenario '$(SCENARIO)' -n '$(N)' -runs $(RUNS) $(BENCHFLAGS)

.PHONY: bench-growth
bench-growth: ## Measure and plot how the cost grows with the numbers of objects in GROWTH. It takes half an hour.
	@$(MAKE) bench SCENARIO=cold-start,memory,restart,rotation N=$(GROWTH) \
		BENCHFLAGS='-plot bin/bench-growth.svg -out bin/bench-growth.json $(BENCHFLAGS)'

# The microbenchmarks that bench-compare runs, and the commit that they are compared with.
MICRO ?= .
BASE ?= HEAD~1

.PHONY: bench-micro
bench-micro: ## Run the microbenchmarks.
	@go test -run '^$$' -bench '$(MICRO)' -benchmem $(MICROFLAGS) ./internal/...

.PHONY: bench-compare
bench-compare: ## Compare the microbenchmarks with those of commit BASE (the previous one).
	@hack/bench-compare '$(BASE)' '$(MICRO)'

## Use a cluster (the one of the current kubeconfig; needs kubectl)

.PHONY: install
install: ## Install the CRDs.
	$(KUBECTL) apply --server-side -k config/crd

.PHONY: uninstall
uninstall: ## Remove the CRDs. Before, delete their objects while a manager runs that can clean up in Grafana.
	$(KUBECTL) delete --ignore-not-found -k config/crd

.PHONY: run
run: ## Run the manager on this machine, with the Secrets of cluster connections in OPERATOR_NAMESPACE.
	@$(KUBECTL) -n $(OPERATOR_NAMESPACE) get secret $(KEY_SECRET) >/dev/null 2>&1 || \
		$(KUBECTL) -n $(OPERATOR_NAMESPACE) create secret generic $(KEY_SECRET) --type=grafana.securevalues.io/fingerprint-key
	CGO_ENABLED=0 go run -ldflags "-X main.version=$(VERSION)" ./cmd --operator-namespace=$(OPERATOR_NAMESPACE) $(ARGS)

.PHONY: deploy
deploy: ## Run the image IMG, which the cluster must be able to pull, with CRDs and roles.
	$(RENDER) | $(KUBECTL) apply --server-side -f -

.PHONY: undeploy
undeploy: ## Remove everything of deploy: CRDs, namespace, fingerprint key, tokens. Before, delete gsvset, gsv, then gconn and cgconn.
	$(KUBECTL) delete --ignore-not-found -k config/default

# A new version is a new file name, so each version is built once.
define go-install
	@echo "Building $(notdir $@), once for this checkout."
	@GOBIN=$(CURDIR)/$@.new go install $(1)
	@mv $@.new/* $@ && rmdir $@.new
endef

$(GOLANGCI_LINT):
	$(call go-install,github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION))

$(HELM):
	$(call go-install,helm.sh/helm/v4/cmd/helm@$(HELM_VERSION))

$(HELM3):
	$(call go-install,helm.sh/helm/v3/cmd/helm@$(HELM3_VERSION))

$(ACTIONLINT):
	$(call go-install,github.com/rhysd/actionlint/cmd/actionlint@$(ACTIONLINT_VERSION))

$(VALE):
	$(call go-install,github.com/vale-cli/vale/v3/cmd/vale@$(VALE_VERSION))

$(CRD_REF_DOCS):
	$(call go-install,github.com/elastic/crd-ref-docs@$(CRD_REF_DOCS_VERSION))

$(HELM_DOCS):
	$(call go-install,github.com/norwoodj/helm-docs/cmd/helm-docs@$(HELM_DOCS_VERSION))

$(HELM_UNITTEST):
	@echo "Building helm-unittest, once for this checkout."
	@go build -C hack/helm-unittest -o $(CURDIR)/$@ github.com/helm-unittest/helm-unittest/cmd/helm-unittest

$(PROMTOOL):
	@echo "Building promtool, once for this checkout."
	@go build -C hack/promtool -tags remove_all_sd -o $(CURDIR)/$@ github.com/prometheus/prometheus/cmd/promtool

# With the flags of the control plane, so that on a machine where that was built from source most of it is compiled already.
$(GRAFANA_APISERVER): $(wildcard hack/grafana-apiserver/*)
	@echo "Building the second fake Grafana, in about three minutes the first time."
	@CGO_ENABLED=0 go build -C hack/grafana-apiserver -buildvcs=false -trimpath -ldflags=-s\ -w -o $(CURDIR)/$@ .
	@touch $@
