package errorlog

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/go-logr/logr/funcr"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

func TestErrorThatStaysIsLoggedOnce(t *testing.T) {
	var lines []string
	log := New(funcr.New(func(_, args string) { lines = append(lines, args) }, funcr.Options{}), "Thing")
	var next error
	reconciler := log.Reconciler(reconcile.Func(func(context.Context, reconcile.Request) (reconcile.Result, error) {
		return reconcile.Result{}, next
	}))
	// look does what a controller of controller-runtime does.
	look := func(name string, err error) {
		next = err
		req := reconcile.Request{NamespacedName: types.NamespacedName{Namespace: "team-a", Name: name}}
		logger := log.Of(&req).WithName("x").WithValues("reconcileID", "1")
		if _, err := reconciler.Reconcile(t.Context(), req); err != nil {
			logger.Error(err, "Reconciler error")
		}
	}
	one, other := errors.New("one"), errors.New("other")
	for _, step := range []struct {
		name string
		err  error
		want bool
	}{
		{"a", one, true},
		{"a", errors.New("one"), false},
		{"b", one, true},
		{"a", one, false},
		{"a", other, true},
		{"a", other, false},
		{"a", one, true},
		{"a", nil, false},
		{"a", one, true},
		{"b", one, false},
	} {
		lines = nil
		look(step.name, step.err)
		if logged := len(lines) > 0; logged != step.want {
			t.Errorf("%s, %v: logged %q", step.name, step.err, lines)
		}
	}
	if len(log.said) != 2 {
		t.Errorf("%d errors are kept", len(log.said))
	}

	lines = nil
	log.Of(nil).Info("about itself")
	log.Of(&reconcile.Request{NamespacedName: types.NamespacedName{Namespace: "team-a", Name: "a"}}).Info("about an object")
	want := []string{
		`"level"=0 "msg"="about itself" "controller"="thing"`,
		`"level"=0 "msg"="about an object" "controller"="thing" "Thing"={"name"="a" "namespace"="team-a"}`,
	}
	if !slices.Equal(lines, want) {
		t.Errorf("logged %q, want %q", lines, want)
	}
}
