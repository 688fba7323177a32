package v1alpha1_test

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
)

func TestDurationsOfAConnection(t *testing.T) {
	const (
		resync  = v1alpha1.DefaultResyncPeriod
		timeout = v1alpha1.DefaultRequestTimeout
	)
	for _, tc := range []struct {
		text        string
		wantResync  time.Duration
		wantTimeout time.Duration
	}{
		{text: "", wantResync: resync, wantTimeout: timeout},
		{text: "0s", wantResync: 0, wantTimeout: timeout},
		{text: "999ms", wantResync: resync, wantTimeout: timeout},
		{text: "1s", wantResync: resync, wantTimeout: time.Second},
		{text: "4.999s", wantResync: resync, wantTimeout: 4999 * time.Millisecond},
		{text: "5s", wantResync: 5 * time.Second, wantTimeout: 5 * time.Second},
		{text: "2m", wantResync: 2 * time.Minute, wantTimeout: 2 * time.Minute},
		{text: "2m1s", wantResync: 121 * time.Second, wantTimeout: timeout},
		{text: "1h30m", wantResync: 90 * time.Minute, wantTimeout: timeout},
		{text: "168h", wantResync: 168 * time.Hour, wantTimeout: timeout},
		{text: "168h1s", wantResync: resync, wantTimeout: timeout},
		{text: "-5s", wantResync: resync, wantTimeout: timeout},
		{text: "1d", wantResync: resync, wantTimeout: timeout},
		{text: "99999999999999999999h", wantResync: resync, wantTimeout: timeout},
		{text: "ten minutes", wantResync: resync, wantTimeout: timeout},
	} {
		spec := v1alpha1.ConnectionSpec{ResyncPeriod: tc.text, RequestTimeout: tc.text}
		if got := spec.ResyncInterval(); got != tc.wantResync {
			t.Errorf("ResyncInterval() of %q = %v, want %v", tc.text, got, tc.wantResync)
		}
		if got := spec.Timeout(); got != tc.wantTimeout {
			t.Errorf("Timeout() of %q = %v, want %v", tc.text, got, tc.wantTimeout)
		}
	}
}

func TestSecureValueFallsBackToItsDefaults(t *testing.T) {
	sv := &v1alpha1.GrafanaSecureValue{ObjectMeta: metav1.ObjectMeta{Name: "object"}}
	if got := sv.SecureValueName(); got != "object" {
		t.Errorf("SecureValueName() without spec.name = %q, want the name of the object", got)
	}
	if got := sv.DescriptionOrDefault(); got != "Synced from Kubernetes" {
		t.Errorf("DescriptionOrDefault() without description = %q", got)
	}
	sv.Spec.Name, sv.Spec.Description = "in-grafana", "External API key"
	if got := sv.SecureValueName(); got != "in-grafana" {
		t.Errorf("SecureValueName() = %q, want spec.name", got)
	}
	if got := sv.DescriptionOrDefault(); got != "External API key" {
		t.Errorf("DescriptionOrDefault() = %q, want spec.description", got)
	}
}

func TestConnectionsAreHandledAlike(t *testing.T) {
	local, cluster := &v1alpha1.GrafanaConnection{}, &v1alpha1.ClusterGrafanaConnection{}
	for _, tc := range []struct {
		connection v1alpha1.Connection
		kind       v1alpha1.ConnectionKind
		spec       *v1alpha1.ConnectionSpec
		status     *v1alpha1.ConnectionStatus
	}{
		{local, v1alpha1.KindGrafanaConnection, &local.Spec.ConnectionSpec, &local.Status},
		{cluster, v1alpha1.KindClusterGrafanaConnection, &cluster.Spec.ConnectionSpec, &cluster.Status},
	} {
		if got := tc.connection.ConnectionKind(); got != tc.kind {
			t.Errorf("ConnectionKind() = %q, want %q", got, tc.kind)
		}
		if tc.connection.GetSpec() != tc.spec || tc.connection.GetStatus() != tc.status {
			t.Errorf("%s: GetSpec or GetStatus is a copy", tc.kind)
		}
	}
}
