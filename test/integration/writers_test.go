package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
)

const theirValue = "their value"

// wire is a secure value as other writers read and send it.
type wire struct {
	Metadata struct {
		Name            string            `json:"name"`
		ResourceVersion string            `json:"resourceVersion,omitempty"`
		Labels          map[string]string `json:"labels,omitempty"`
		Annotations     map[string]string `json:"annotations,omitempty"`
	} `json:"metadata"`
	Spec struct {
		Description string   `json:"description"`
		Value       string   `json:"value,omitempty"`
		Decrypters  []string `json:"decrypters"`
	} `json:"spec"`
}

// person calls Grafana as one of the tools that people use.
type person struct{ w *world }

func (p person) call(method, name string, body any) (int, wire) {
	GinkgoHelper()
	content, err := json.Marshal(body)
	Expect(err).NotTo(HaveOccurred())
	url := p.w.url + "/apis/secret.grafana.app/v1beta1/namespaces/" + grafanaNS + "/securevalues"
	if method != http.MethodPost {
		url += "/" + name
	}
	req, err := http.NewRequestWithContext(p.w.ctx, method, url, bytes.NewReader(content))
	Expect(err).NotTo(HaveOccurred())
	req.Header.Set("Authorization", "Bearer "+goodToken)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	Expect(err).NotTo(HaveOccurred())
	defer func() { _ = resp.Body.Close() }()
	content, err = io.ReadAll(resp.Body)
	Expect(err).NotTo(HaveOccurred())
	var answer wire
	Expect(json.Unmarshal(content, &answer)).To(Succeed())
	return resp.StatusCode, answer
}

// writes sends what a tool sends: it makes the value if there is none, and else replaces it by what edit returns of what is there.
func (p person) writes(name string, edit func(found wire) wire) {
	GinkgoHelper()
	code, found := p.call(http.MethodGet, name, nil)
	method := http.MethodPut
	if code == http.StatusNotFound {
		method = http.MethodPost
	}
	sent := edit(found)
	sent.Metadata.Name = name
	sent.Spec.Description, sent.Spec.Value = "theirs", theirValue
	if sent.Spec.Decrypters == nil {
		sent.Spec.Decrypters = []string{"synthetic-monitoring"}
	}
	code, _ = p.call(method, name, sent)
	if code == http.StatusConflict && method == http.MethodPut { // each of them reads and writes again
		p.writes(name, edit)
		return
	}
	Expect(code).To(BeNumerically("<", 300))
}

// What the form of the Synthetic Monitoring app accepts as labels: its secretSchema.
var (
	formLabelKey  = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]*$`)
	formMaxLabels = 10
	formMaxLength = 63
)

// form saves in the form of the Synthetic Monitoring app: it checks and keeps the labels, and sends no annotations.
func form(p person, name string) {
	GinkgoHelper()
	p.writes(name, func(found wire) (sent wire) {
		Expect(len(found.Metadata.Labels)).To(BeNumerically("<=", formMaxLabels))
		for key, value := range found.Metadata.Labels {
			Expect(formLabelKey.MatchString(key)).To(BeTrue(), "the form does not accept the label %s", key)
			Expect(max(len(key), len(value))).To(BeNumerically("<=", formMaxLength))
		}
		sent.Metadata.Labels = found.Metadata.Labels
		return sent
	})
}

// manages are the annotations of a tool that says that it manages the value.
func manages(tool, id string) map[string]string {
	return map[string]string{"grafana.app/managedBy": tool, "grafana.app/managerId": id}
}

// terraform applies a resource: everything is from its configuration, but for the resourceVersion.
func terraform(p person, name string) {
	GinkgoHelper()
	p.writes(name, func(found wire) (sent wire) {
		sent.Metadata.ResourceVersion = found.Metadata.ResourceVersion
		sent.Metadata.Annotations = manages("terraform", "grafana-terraform-provider")
		return sent
	})
}

// gcx pushes the file that it pulled: it keeps labels and annotations, and adds its own.
func gcx(p person, name string) {
	GinkgoHelper()
	p.writes(name, func(found wire) wire {
		annotations := maps.Clone(found.Metadata.Annotations)
		found.Metadata.Annotations = manages("kubectl", "gcx")
		maps.Copy(found.Metadata.Annotations, annotations)
		return found
	})
}

// curl sends the example of Grafana's documentation.
func curl(p person, name string) {
	GinkgoHelper()
	p.writes(name, func(wire) (sent wire) { return sent })
}

// removed deletes the value.
func removed(p person, name string) {
	GinkgoHelper()
	code, _ := p.call(http.MethodDelete, name, nil)
	Expect(code).To(Equal(http.StatusOK))
}

// replaced deletes the value, and makes another of its name.
func replaced(p person, name string) {
	GinkgoHelper()
	removed(p, name)
	curl(p, name)
}

var writers = map[string]func(person, string){
	"form": form, "terraform": terraform, "gcx": gcx, "curl": curl, "delete": removed, "replace": replaced,
}

// What people do to values in Grafana, with the requests of their tools. The small fake forgets what a PUT does not send, as Grafana does.
var _ = Describe("A person", func() {
	drifts := []v1alpha1.DriftPolicy{v1alpha1.DriftPolicyCorrect, v1alpha1.DriftPolicyReport}
	adoptions := []v1alpha1.AdoptionPolicy{v1alpha1.AdoptionPolicyRefuse, v1alpha1.AdoptionPolicyAdopt}

	It("edits a value of ours: driftPolicy decides, unless a tool manages it from then on, or it is another value", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		w.secret("source", map[string]string{"key": "canary-1"})
		var objects []*v1alpha1.GrafanaSecureValue
		for _, writer := range slices.Sorted(maps.Keys(writers)) {
			for _, drift := range drifts {
				for _, adoption := range adoptions {
					sv := w.value(strings.ToLower(fmt.Sprintf("%s-%s-%s", writer, drift, adoption)))
					sv.Spec.DriftPolicy, sv.Spec.AdoptionPolicy = drift, adoption
					w.create(sv)
					objects = append(objects, sv)
				}
			}
		}
		for _, sv := range objects {
			w.eventuallySynced(sv)
		}
		last := slices.MaxFunc(objects, func(a, b *v1alpha1.GrafanaSecureValue) int {
			return a.Status.Targets[0].LastWriteTime.Compare(b.Status.Targets[0].LastWriteTime.Time)
		})
		w.list(last) // no LIST from now on is too early
		w.grafana.ResetCalls()
		w.grafana.Inject(grafanatest.Fault{
			Verb: grafanatest.VerbUpdate, Name: "terraform-correct-refuse", Times: 1,
			Code: http.StatusConflict, ContentType: "application/json", Body: `{"kind":"Status","reason":"Conflict","code":409}`,
		})
		for _, sv := range objects {
			writer, _, _ := strings.Cut(sv.Name, "-")
			writers[writer](person{w}, sv.Name)
		}
		Expect(w.grafana.Calls()).To(ContainElement(HaveField("Code", http.StatusConflict)))
		w.list(last)
		for _, sv := range objects {
			By(sv.Name)
			switch writer, _, _ := strings.Cut(sv.Name, "-"); {
			case writer == "terraform" || writer == "gcx",
				writer == "replace" && sv.Spec.AdoptionPolicy == v1alpha1.AdoptionPolicyRefuse:
				w.eventually(sv, v1alpha1.ReasonAlreadyExists)
				Expect(string(w.stored(sv.Name).Value)).To(Equal(theirValue))
			case writer == "replace" || sv.Spec.DriftPolicy == v1alpha1.DriftPolicyCorrect:
				stored := w.eventuallyStored(sv.Name, "canary-1")
				w.eventuallySynced(sv)
				Expect(stored.Labels).To(HaveKeyWithValue(labelOwner, ownerLabel(sv)))
				Expect(stored.Annotations).To(HaveKey(annotationResource))
			default:
				w.eventually(sv, v1alpha1.ReasonDrifted)
				stored, _ := w.grafana.Value(grafanaNS, sv.Name) // which is none after a deletion
				Expect(string(stored.Value)).NotTo(Equal("canary-1"))
			}
		}
	})

	It("made the value before: adoptionPolicy decides, unless a tool manages it", func(ctx SpecContext) {
		w := newConnectedWorld(ctx)
		w.secret("source", map[string]string{"key": "canary-1"})
		for _, writer := range []string{"curl", "form", "gcx", "terraform"} {
			for _, adoption := range adoptions {
				sv := w.value(strings.ToLower(fmt.Sprintf("%s-%s", writer, adoption)))
				By(sv.Name)
				sv.Spec.AdoptionPolicy = adoption
				writers[writer](person{w}, sv.Name)
				w.create(sv)
				if adoption == v1alpha1.AdoptionPolicyRefuse || writer == "gcx" || writer == "terraform" {
					w.eventually(sv, v1alpha1.ReasonAlreadyExists)
					Expect(string(w.stored(sv.Name).Value)).To(Equal(theirValue))
					continue
				}
				w.eventuallySynced(sv)
				Expect(string(w.stored(sv.Name).Value)).To(Equal("canary-1"))
				form(person{w}, sv.Name) // which still accepts the labels
			}
		}
	})
})
