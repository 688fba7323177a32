package securevalue

import (
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

func TestChangesAreOldUntilSomethingHasCome(t *testing.T) {
	first, second := types.NamespacedName{Name: "first"}, types.NamespacedName{Name: "second"}
	var c changes
	c.secret(first, testTime)
	c.secret(first, testTime.Add(time.Minute))
	c.object(second, testTime.Add(time.Minute))
	now := testTime.Add(time.Hour)
	if got := c.oldest(now); got != time.Hour {
		t.Errorf("oldest = %s, want the first change", got)
	}
	c.reported(first)
	if got := c.oldest(now); got != 59*time.Minute {
		t.Errorf("oldest = %s, want that of the other object", got)
	}
	if at, changed := c.arrived(first); !changed || !at.Equal(testTime) {
		t.Errorf("arrived = %s, %t", at, changed)
	}
	if _, changed := c.arrived(first); changed {
		t.Error("one change arrives twice")
	}
	c.secret(first, testTime)
	c.restart(now)
	if got := c.oldest(now.Add(time.Second)); got != time.Second {
		t.Errorf("oldest = %s: what a standby saw counts", got)
	}
	c.forget(first)
	c.forget(second)
	if got := c.oldest(now.Add(time.Hour)); got != 0 {
		t.Errorf("oldest = %s of objects that are gone", got)
	}
}
