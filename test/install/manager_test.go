package install

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/securevalues-io/grafana-secure-value-operator/test/controlplane"
)

// manager is a process that stands for a pod of the installed Deployment.
type manager struct {
	cluster *cluster
	user    string // of the audit log
	probes  string // address
	metrics string // address; empty if the Deployment does not serve any
	stop    func()
}

// run starts the manager as a pod of the Deployment in the operator's namespace would: with its flags and environment, and with a token of
// its ServiceAccount. Addresses alone are others. It returns once the probes of the Deployment pass.
func (c *cluster) run() *manager {
	GinkgoHelper()
	deployments := &appsv1.DeploymentList{}
	Expect(c.k8s.List(c.ctx, deployments, client.InNamespace(operatorNamespace))).To(Succeed())
	Expect(deployments.Items).To(HaveLen(1))
	pod := deployments.Items[0].Spec.Template.Spec
	Expect(pod.Containers).To(HaveLen(1))
	container := pod.Containers[0]
	Expect(container.Command).To(Equal([]string{"/manager"}))

	m := &manager{cluster: c, user: "system:serviceaccount:" + operatorNamespace + ":" + pod.ServiceAccountName, probes: freeAddress()}
	kubeconfig := c.kubeconfigOf(c.serviceAccount(operatorNamespace, pod.ServiceAccountName))
	args := append([]string{"--kubeconfig=" + kubeconfig}, container.Args...)
	args = append(args, "--health-probe-bind-address="+m.probes)
	for _, arg := range container.Args {
		if strings.HasPrefix(arg, "--metrics-bind-address=") {
			m.metrics = freeAddress()
			args = append(args, "--metrics-bind-address="+m.metrics)
		}
	}
	cmd := exec.Command(managerPath, args...) //nolint:noctx // stop ends it, so that it can release its lease
	for _, env := range container.Env {
		value := env.Value
		switch from := env.ValueFrom; {
		case from == nil:
		case from.ResourceFieldRef != nil:
			Expect(from.ResourceFieldRef.Resource).To(Equal("limits.memory"))
			value = strconv.FormatInt(container.Resources.Limits.Memory().Value(), 10)
		default:
			Expect(from.FieldRef.FieldPath).To(Equal("metadata.namespace"))
			value = operatorNamespace
		}
		cmd.Env = append(cmd.Env, env.Name+"="+value)
	}
	log := &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = log, log
	Expect(cmd.Start()).To(Succeed())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	m.stop = sync.OnceFunc(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		err := <-ended
		if CurrentSpecReport().Failed() {
			AddReportEntry("log of the manager", log.String())
		}
		Expect(err).NotTo(HaveOccurred(), "the manager ended with an error:\n%s", log)
		Expect(log.String()).NotTo(ContainSubstring("canary"), "a secret in the log")
	})
	DeferCleanup(m.stop)

	for _, probe := range []*corev1.Probe{container.LivenessProbe, container.ReadinessProbe} {
		Eventually(func() (int, error) {
			select {
			case err := <-ended:
				ended <- err
				return 0, StopTrying(fmt.Sprintf("the manager ended: %v\n%s", err, log))
			default:
			}
			code, _, err := m.get("http://"+m.probes+probe.HTTPGet.Path, "")
			return code, err
		}).Should(Equal(http.StatusOK))
	}
	return m
}

// get asks a manager, with a token if there is one.
func (m *manager) get(url, token string) (code int, body string, err error) {
	request, err := http.NewRequestWithContext(m.cluster.ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, "", err
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	// the certificate is the manager's own, made with each start
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = response.Body.Close() }()
	content, err := io.ReadAll(response.Body)
	return response.StatusCode, string(content), err
}

// metric returns the sum of the metric over all labels that contain the given text, as the reader sees it.
func (m *manager) metric(reader *rest.Config, name, labels string) (int, error) {
	code, body, err := m.get("https://"+m.metrics+"/metrics", reader.BearerToken)
	if err != nil {
		return 0, err
	}
	if code != http.StatusOK {
		return 0, fmt.Errorf("GET /metrics: %d %s", code, body)
	}
	sum, samples := 0.0, regexp.MustCompile(`(?m)^`+name+`\{[^}]*`+regexp.QuoteMeta(labels)+`[^}]*\} (\S+)$`).FindAllStringSubmatch(body, -1)
	if samples == nil {
		return 0, fmt.Errorf("no metric %s with %s", name, labels)
	}
	for _, sample := range samples {
		value, err := strconv.ParseFloat(sample[1], 64)
		if err != nil {
			return 0, err
		}
		sum += value
	}
	return int(sum), nil
}

// serviceAccount returns what a client needs to act as the ServiceAccount.
func (c *cluster) serviceAccount(namespace, name string) *rest.Config {
	GinkgoHelper()
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	request := &authenticationv1.TokenRequest{}
	Expect(c.k8s.SubResource("token").Create(c.ctx, account, request)).To(Succeed())
	config := rest.AnonymousClientConfig(c.plane.Config())
	config.BearerToken = request.Status.Token
	return config
}

// freeAddress returns an address at which nothing listens.
func freeAddress() string {
	GinkgoHelper()
	address, err := controlplane.FreeAddress()
	Expect(err).NotTo(HaveOccurred())
	return address
}
