//go:build onednn && testhooks && amd64

package contrast

import (
	"regexp"
	"testing"

	"mochi/model/engine"
)

// TestEveryAllocationMayFail makes one allocation of a panel after another
// fail. No kernel runs, so that any processor will do.
func TestEveryAllocationMayFail(t *testing.T) {
	defer allocations(-1)
	says := regexp.MustCompile(`^no memory for the loss: [1-9]\d* bytes of a panel of 32 queries × 20, `)
	n := 0
	for ; ; n++ {
		allocations(n)
		_, err := New(true).NewPanel(engine.PanelShape{Dim: 20, Hard: 5, Rows: 5, Points: 7})
		if err == nil {
			break // there are no more than n
		}
		if !says.MatchString(err.Error()) {
			t.Fatalf("allocation %d fails: %v", n, err)
		}
	}
	if n != 13 {
		t.Errorf("%d allocations were seen, want the panel and its 12 arrays", n)
	}
}
