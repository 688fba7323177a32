package integration

import (
	"context"
	"crypto/tls"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/securevalues-io/grafana-secure-value-operator/internal/fingerprint"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/operator"
	"github.com/securevalues-io/grafana-secure-value-operator/test/controlplane"
	"github.com/securevalues-io/grafana-secure-value-operator/test/controlplane/assets"
)

// idle are the rights that no spec uses, with the reason why the manager has them all the same.
var idle = map[string]string{
	"list secrets":    byList,
	"list namespaces": byList,
	"list grafanaconnections.grafana.securevalues.io":                  byList,
	"list clustergrafanaconnections.grafana.securevalues.io":           byList,
	"patch events in its own namespace":                                bySeries,
	"get grafanas.grafana.integreatly.org":                             byUse,
	"list grafanasecurevaluesets.grafana.securevalues.io":              byList,
	"create grafanasecurevalues.grafana.securevalues.io":               byApply,
	"update grafanasecurevaluesets/finalizers.grafana.securevalues.io": byOwner,
}

const (
	byList   = "where the API server does not begin a watch with what is there"
	bySeries = "where an event is repeated again and again"
	byUse    = "with list and watch, as a role for reading has it"
	byApply  = "with a patch that applies what does not exist yet"
	byOwner  = "where the admission plugin OwnerReferencesPermissionEnforcement is on"
)

// renderedRights returns the ServiceAccount of the manager, all roles and all bindings, and the Secret that it fills, as config/default
// installs them.
func renderedRights(ctx context.Context, at *controlplane.ControlPlane) []client.Object {
	GinkgoHelper()
	rendered, err := render(ctx, at.KubectlPath())
	Expect(err).NotTo(HaveOccurred())
	var objects []client.Object
	for document := range strings.SplitSeq(rendered, "\n---\n") {
		o := &unstructured.Unstructured{}
		Expect(yaml.Unmarshal([]byte(document), &o.Object)).To(Succeed())
		if o.GetKind() == "ServiceAccount" || o.GetKind() == "Secret" || o.GroupVersionKind().Group == rbacv1.GroupName {
			objects = append(objects, o)
		}
	}
	Expect(objects).NotTo(BeEmpty())
	return objects
}

// render returns what config/default renders to. It renders a copy, so that go test sees which files the suite depends on.
func render(ctx context.Context, kubectl string) (string, error) {
	dir, err := os.MkdirTemp("", "config-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("..", "..", "config"))); err != nil {
		return "", err
	}
	out, err := exec.CommandContext(ctx, kubectl, "kustomize", filepath.Join(dir, "default")).Output()
	return string(out), err
}

// managerOf returns what the manager needs to act as its ServiceAccount, which has the rights that config/default gives it and no others.
func managerOf(ctx context.Context, at *controlplane.ControlPlane) *rest.Config {
	GinkgoHelper()
	eventuallyMay(ctx, at, managerUser, "", operatorNamespace)
	return accountOf(ctx, at, operatorNamespace, managerAccount)
}

// eventuallyMay waits until the API server knows that the user may do in the namespaces what the manager does there, which it learns from
// its own watches.
func eventuallyMay(ctx context.Context, at *controlplane.ControlPlane, user string, namespaces ...string) {
	GinkgoHelper()
	c, err := client.New(at.Config(), client.Options{Scheme: operator.Scheme()})
	Expect(err).NotTo(HaveOccurred())
	for _, namespace := range namespaces {
		asked := authorizationv1.ResourceAttributes{Namespace: namespace, Verb: "watch", Resource: "secrets"}
		if namespace == operatorNamespace {
			asked.Verb, asked.Name = "update", fingerprint.SecretName
		}
		Eventually(func(g Gomega) {
			review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{User: user, ResourceAttributes: &asked}}
			g.Expect(c.Create(ctx, review)).To(Succeed())
			g.Expect(review.Status.Allowed).To(BeTrue(), "%s, %+v", user, asked)
		}).Should(Succeed())
	}
}

func accountOf(ctx context.Context, at *controlplane.ControlPlane, namespace, name string) *rest.Config {
	GinkgoHelper()
	c, err := client.New(at.Config(), client.Options{Scheme: operator.Scheme()})
	Expect(err).NotTo(HaveOccurred())
	day := int64(24 * 60 * 60)
	token := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &day}}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	Expect(c.SubResource("token").Create(ctx, account, token)).To(Succeed())
	config := rest.AnonymousClientConfig(at.Config())
	config.BearerToken, config.QPS = token.Status.Token, -1
	return config
}

// right is one verb on one resource that a role gives the manager.
type right struct {
	namespace                   string // empty: everywhere
	verb, group, resource, name string // resource with its subresource; an empty name is any
}

func (r right) String() string {
	s := r.verb + " " + r.resource
	if r.group != "" {
		s += "." + r.group
	}
	if r.name != "" {
		s += " " + r.name
	}
	if r.namespace != "" {
		s += " in its own namespace"
	}
	return s
}

// covers says whether the request is one that the right allows.
func (r right) covers(e controlplane.AuditEvent) bool {
	resource := e.Resource
	if e.Subresource != "" {
		resource += "/" + e.Subresource
	}
	return r.verb == e.Verb && r.group == e.Group && r.resource == resource &&
		(r.namespace == "" || r.namespace == e.Namespace) && (r.name == "" || r.name == e.Name)
}

// countRights returns how often the managers of a control plane used each right that they were granted as their ServiceAccount, and
// what they were denied.
func countRights(at *controlplane.ControlPlane) (used map[string]int, denied []string) {
	GinkgoHelper()
	rights := rightsOf(at)
	events, err := at.Audit(controlplane.Mark{})
	Expect(err).NotTo(HaveOccurred())
	used = map[string]int{}
	for _, r := range rights {
		used[r.String()] = 0
	}
	for _, e := range events {
		if e.User != managerUser {
			continue
		}
		if e.Denied {
			denied = append(denied, strings.Join([]string{e.Verb, e.Group, e.Resource, e.Subresource, e.Namespace, e.Name}, " "))
		}
		for _, r := range rights {
			if r.covers(e) {
				used[r.String()]++
			}
		}
	}
	return used, denied
}

// rightsOf returns what the roles that are bound to the ServiceAccount of the manager grant.
func rightsOf(at *controlplane.ControlPlane) []right {
	GinkgoHelper()
	ctx := context.Background() //nolint:forbidigo // the spec that started the control plane may be over
	c, err := client.New(at.Config(), client.Options{Scheme: operator.Scheme()})
	Expect(err).NotTo(HaveOccurred())
	var rights []right
	add := func(subjects []rbacv1.Subject, ref rbacv1.RoleRef, namespace string) {
		GinkgoHelper()
		account := rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: operatorNamespace, Name: managerAccount}
		if !slices.Contains(subjects, account) {
			return
		}
		role := &unstructured.Unstructured{}
		role.SetGroupVersionKind(rbacv1.SchemeGroupVersion.WithKind(ref.Kind))
		roleNamespace := namespace
		if ref.Kind == "ClusterRole" {
			roleNamespace = ""
		}
		Expect(c.Get(ctx, client.ObjectKey{Namespace: roleNamespace, Name: ref.Name}, role)).To(Succeed())
		rules := rbacv1.Role{} // both kinds have them in the same place
		out, err := role.MarshalJSON()
		Expect(err).NotTo(HaveOccurred())
		Expect(yaml.Unmarshal(out, &rules)).To(Succeed())
		Expect(rules.Rules).NotTo(BeEmpty())
		for _, rule := range rules.Rules {
			Expect(rule.NonResourceURLs).To(BeEmpty())
			names := rule.ResourceNames
			if len(names) == 0 {
				names = []string{""}
			}
			for _, group := range rule.APIGroups {
				for _, resource := range rule.Resources {
					for _, verb := range rule.Verbs {
						Expect([]string{group, resource, verb}).NotTo(ContainElement(ContainSubstring("*")))
						for _, name := range names {
							rights = append(rights, right{namespace, verb, group, resource, name})
						}
					}
				}
			}
		}
	}
	everywhere, inNamespaces := &rbacv1.ClusterRoleBindingList{}, &rbacv1.RoleBindingList{}
	Expect(c.List(ctx, everywhere)).To(Succeed())
	Expect(c.List(ctx, inNamespaces)).To(Succeed())
	for _, b := range everywhere.Items {
		add(b.Subjects, b.RoleRef, "")
	}
	for _, b := range inNamespaces.Items {
		add(b.Subjects, b.RoleRef, b.Namespace)
	}
	Expect(rights).NotTo(BeEmpty())
	return rights
}

// rightsTableEnv names the file for the table of rights.
const rightsTableEnv = "SUITE_RIGHTS_TABLE"

// writeRightsTable writes what was granted, and how often it was used.
func writeRightsTable(sum tally) {
	GinkgoHelper()
	var table strings.Builder
	fmt.Fprintf(&table, "%8s  %s\n", "requests", "the manager may")
	for _, r := range slices.Sorted(maps.Keys(sum.Used)) {
		fmt.Fprintf(&table, "%8d  %s", sum.Used[r], r)
		if reason := idle[r]; sum.Used[r] == 0 && reason != "" {
			table.WriteString(": " + reason)
		}
		table.WriteString("\n")
	}
	fmt.Fprintf(&table, "%8d  denied\n", len(sum.Denied))
	Expect(os.WriteFile(os.Getenv(rightsTableEnv), []byte(table.String()), 0o600)).To(Succeed())
}

// Whatever specs were run, nothing was denied. Where all were run, nothing was granted that is not used, the table above apart. An older
// API server may need what is in the table.
var _ = ReportAfterSuite("the manager used the rights that it has", func(report Report) {
	sum := total(report)
	writeRightsTable(sum)
	Expect(sum.Denied).To(BeEmpty())
	if !allPassed(report) {
		return
	}
	var unused []string
	for r, requests := range sum.Used {
		if requests == 0 {
			unused = append(unused, r)
		}
	}
	wanted, err := assets.Wanted()
	Expect(err).NotTo(HaveOccurred())
	if wanted == assets.Newest() {
		Expect(unused).To(ConsistOf(slices.Collect(maps.Keys(idle))))
	} else {
		Expect(slices.Collect(maps.Keys(idle))).To(ContainElements(unused))
	}
})

var _ = Describe("A manager with the flags of its Deployment", func() {
	It("elects itself, reads the id of the cluster, and asks who reads its metrics", func(ctx SpecContext) {
		newPlane(ctx)
		w := newWorld(ctx)
		w.create(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "reader"}})
		w.create(&rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "reader"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "grafana-secure-value-operator-metrics-reader"},
			Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: w.namespace, Name: "reader"}},
		})
		address := freeAddress()
		stopManager = runManager(managerOf(ctx, plane), func(o *operator.Options) {
			o.LeaderElect, o.ClusterID, o.MetricsBindAddress, o.MetricsSecure = true, "", address, true
		})
		w.create(w.connection(connectionRef))
		w.synced("api-key", "canary-1")
		kubeSystem := &corev1.Namespace{}
		Expect(k8s.Get(ctx, client.ObjectKey{Name: "kube-system"}, kubeSystem)).To(Succeed())
		Expect(w.stored("api-key").Labels).To(HaveKeyWithValue("securevalues.io.cluster", string(kubeSystem.UID)))

		// the certificate is the manager's own, made with each start
		asks := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}}, ForceAttemptHTTP2: true}}
		Eventually(func() error { // the server starts beside the controllers
			connection, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
			if err == nil {
				err = connection.Close()
			}
			return err
		}).Should(Succeed())
		ask := func(method, path, token string) (code int, protocol string) {
			GinkgoHelper()
			request, err := http.NewRequestWithContext(ctx, method, "https://"+address+path, http.NoBody)
			Expect(err).NotTo(HaveOccurred())
			if token != "" {
				request.Header.Set("Authorization", "Bearer "+token)
			}
			response, err := asks.Do(request)
			Expect(err).NotTo(HaveOccurred())
			Expect(response.Body.Close()).To(Succeed())
			return response.StatusCode, response.Proto
		}
		reader := accountOf(ctx, plane, w.namespace, "reader").BearerToken
		code, protocol := ask(http.MethodGet, "/metrics", reader)
		Expect(code).To(Equal(http.StatusOK))
		Expect(protocol).To(Equal("HTTP/1.1"), "HTTP/2, which we offered")
		unauthorised := accountOf(ctx, plane, operatorNamespace, managerAccount).BearerToken
		for _, refused := range []struct {
			method, token string
			code          int
		}{
			{http.MethodGet, "", http.StatusUnauthorized},
			{http.MethodGet, "canary-invalid", http.StatusInternalServerError}, // as controller-runtime's filter has it
			{http.MethodGet, unauthorised, http.StatusForbidden},
			{http.MethodPost, reader, http.StatusMethodNotAllowed},
		} {
			code, _ = ask(refused.method, "/metrics", refused.token)
			Expect(code).To(Equal(refused.code))
		}
		for _, path := range []string{"/debug/pprof/", "/debug/pprof/heap", "/debug/vars"} {
			code, _ = ask(http.MethodGet, path, reader)
			Expect(code).To(Equal(http.StatusNotFound), path)
		}
	})
})

// freeAddress returns an address at which nothing listens.
func freeAddress() string {
	GinkgoHelper()
	address, err := controlplane.FreeAddress()
	Expect(err).NotTo(HaveOccurred())
	return address
}
