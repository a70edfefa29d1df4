package replica

import (
	"slices"
	"strings"
	"testing"

	"mochi/coordinator/protocol"
)

// Units are those that were dealt; a deal that has others, whoever's they are, is
// refused before anything is computed.
func TestUnitsAreWhole(t *testing.T) {
	deal := func(atOnce int, groups ...[]int) ([]int, error) {
		m := &membership{}
		for _, g := range groups {
			m.Members = append(m.Members, protocol.Member{Name: "a", Groups: g})
		}
		err := m.splitUnits(atOnce)
		return m.own(), err
	}
	for _, c := range []struct {
		atOnce int
		groups [][]int
		want   []int
	}{
		{1, [][]int{{0, 1, 2}, {3}}, []int{0, 1, 2}},
		{2, [][]int{{4, 5, 6, 7}, {0, 1, 2, 3}}, []int{4, 6}},
		{3, [][]int{{0, 1, 2}}, []int{0}},
		{2, [][]int{nil, {0, 1}}, nil},
	} {
		if got, err := deal(c.atOnce, c.groups...); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%d at once of %v: units begin at %v, want %v (%v)", c.atOnce, c.groups, got, c.want, err)
		}
	}
	for _, groups := range [][][]int{{{0, 1, 2}}, {{0, 2}}, {{0, 1}, {2}}, {{1, 0}}, {{0, 1}, {2, 4, 3, 5}}} {
		if _, err := deal(2, groups...); err == nil || !strings.Contains(err.Error(), "not in units of 2") {
			t.Errorf("2 at once of %v: %v", groups, err)
		}
	}
}
