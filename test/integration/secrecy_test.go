package integration

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/prometheus/common/expfmt"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/securevalues-io/grafana-secure-value-operator/test/controlplane"
)

// canary is a part of every secret of the suite, of all that its Grafanas say in errors and headers, and of where they redirect to. It
// may be in Secrets and in Grafana, and is looked for everywhere else: in all that the managers log, with the highest verbosity; in
// every version of every object of ours, and at the end in every object but Secrets; and in the metrics.
const canary = "canary"

// disguises are the texts by which the canary shows in base64, wherever it begins, and in hexadecimal digits.
var disguises = func() []string {
	found := []string{hex.EncodeToString([]byte(canary))}
	for before := range 3 {
		encoded := base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat("x", before) + canary))
		found = append(found, encoded[(before*8+5)/6:(before+len(canary))*8/6])
	}
	return found
}()

// dumped is a line of what encoding/hex.Dump returns, in the quotes of a log too.
var dumped = regexp.MustCompile(`[0-9a-f]{8}  ([0-9a-f ]{48,50}) \|`)

// showsCanary reports whether a text shows the canary, in clear or in disguise.
func showsCanary(text string) bool {
	if strings.Contains(strings.ToLower(text), canary) || slices.ContainsFunc(disguises, func(d string) bool { return strings.Contains(text, d) }) {
		return true
	}
	var dump strings.Builder
	for _, line := range dumped.FindAllStringSubmatch(text, -1) {
		dump.WriteString(strings.ReplaceAll(line[1], " ", ""))
	}
	content, err := hex.DecodeString(dump.String())
	return err == nil && bytes.Contains(content, []byte(canary))
}

// leaks are where the canary was seen and may not be.
var leaks struct {
	sync.Mutex
	found []string
	lines int // of logs that were scanned
}

// scan records where a text shows the canary.
func scan(where, text string) {
	leaks.Lock()
	defer leaks.Unlock()
	if showsCanary(text) && len(leaks.found) < 10 {
		leaks.found = append(leaks.found, where+": "+text[:min(len(text), 2000)])
	}
}

// watchedLog is what all managers log to, with the highest verbosity. Of that, Ginkgo and recordLog keep what a manager logs by default.
func watchedLog() logr.Logger {
	return funcr.New(func(prefix, args string) {
		leaks.Lock()
		leaks.lines++
		leaks.Unlock()
		scan("log", prefix+" "+args)
		if strings.HasPrefix(args, `"level"=0 `) || !strings.HasPrefix(args, `"level"=`) {
			fmt.Fprintln(GinkgoWriter, prefix, args)
			recorded.add(args)
		}
	}, funcr.Options{Verbosity: 127})
}

// scanMetrics scans all metrics of this process, which are those of its managers.
func scanMetrics() {
	GinkgoHelper()
	families, err := metrics.Registry.Gather()
	Expect(err).NotTo(HaveOccurred())
	Expect(families).NotTo(BeEmpty())
	var text strings.Builder
	for _, family := range families {
		_, err := expfmt.MetricFamilyToText(&text, family)
		Expect(err).NotTo(HaveOccurred())
	}
	scan("metrics", text.String())
}

// scanObjects scans every object of a control plane, Secrets apart, and returns how many there are.
func scanObjects(at *controlplane.ControlPlane) int {
	GinkgoHelper()
	ctx := context.Background() //nolint:forbidigo // the spec that started the control plane may be over
	kinds, err := discovery.NewDiscoveryClientForConfigOrDie(at.Config()).ServerPreferredResources()
	Expect(err).NotTo(HaveOccurred())
	objects, err := dynamic.NewForConfig(at.Config())
	Expect(err).NotTo(HaveOccurred())
	count := 0
	for _, list := range kinds {
		version, err := schema.ParseGroupVersion(list.GroupVersion)
		Expect(err).NotTo(HaveOccurred())
		for _, kind := range list.APIResources {
			if !slices.Contains(kind.Verbs, "list") || version.Group == "" && kind.Name == "secrets" {
				continue
			}
			all, err := objects.Resource(version.WithResource(kind.Name)).List(ctx, metav1.ListOptions{})
			Expect(err).NotTo(HaveOccurred(), kind.Name)
			for _, o := range all.Items {
				content, err := o.MarshalJSON()
				Expect(err).NotTo(HaveOccurred())
				scan(kind.Name, string(content))
				count++
			}
		}
	}
	return count
}

// leaked returns what was seen, and forgets it.
func leaked() []string {
	leaks.Lock()
	defer leaks.Unlock()
	found := leaks.found
	leaks.found = nil
	return found
}

// After each spec nothing has shown what may not be seen.
var _ = AfterEach(func() {
	scanMetrics()
	Expect(leaked()).To(BeEmpty())
})

var _ = Describe("The canary", func() {
	DescribeTable("is seen", func(text string) { Expect(showsCanary(text)).To(BeTrue(), text) },
		Entry("in clear", "glsa_canary-token"),
		Entry("in a header", "X-Canary: 1"),
		Entry("in base64", base64.StdEncoding.EncodeToString([]byte("canary-1"))),
		Entry("in base64, after one byte", base64.StdEncoding.EncodeToString([]byte("1canary-1"))),
		Entry("in base64, after two bytes", base64.StdEncoding.EncodeToString([]byte("12canary-1"))),
		Entry("in hexadecimal digits", hex.EncodeToString([]byte("1canary"))),
		Entry("in a dump", hex.Dump([]byte("some text before canary-1"))),
		Entry("in a dump, over the end of a line", hex.Dump([]byte("0123456789abccanary-1"))),
		Entry("in a dump that is logged", fmt.Sprintf("%q", hex.Dump([]byte("0123456789abccanary-1")))),
	)

	It("is looked for in all that is logged, in metrics and in objects", func() {
		scan("here", "a canary")
		Expect(leaked()).To(Equal([]string{"here: a canary"}))
		watchedLog().V(100).Info("Said", "value", "canary")
		Expect(leaked()).To(HaveLen(1))
		Expect(scanObjects(plane)).To(BeNumerically(">", 100))
	})
})
