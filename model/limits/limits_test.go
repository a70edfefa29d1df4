package limits_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"mochi/model/limits"
)

// told collects what a check says.
func told(check func(fault limits.Report)) (list []string) {
	check(func(setting, format string, args ...any) {
		list = append(list, setting+": "+fmt.Sprintf(format, args...))
	})
	return list
}

func TestRange(t *testing.T) {
	for _, c := range []struct {
		r     limits.Range
		value float64
		want  string
	}{
		{"at least 0 and below 1", 0, ""}, {"at least 0 and below 1", 0.999, ""},
		{"at least 0 and below 1", 1, "x: 1 must be at least 0 and below 1"},
		{"at least 0 and below 1", -0.1, "x: -0.1 must be at least 0 and below 1"},
		{"above 0", 1e-300, ""}, {"above 0", 0, "x: 0 must be above 0"},
		{"above 0", math.Inf(1), "x: +Inf must be finite and above 0"}, {"above 0", math.NaN(), "x: NaN must be above 0"},
		{"at most 2", 2, ""}, {"at most 2", 2.5, "x: 2.5 must be at most 2"}, {"at most 2", math.Inf(-1), "x: -Inf must be finite and at most 2"},
	} {
		var want []string
		if c.want != "" {
			want = []string{c.want}
		}
		if got := told(func(fault limits.Report) { c.r.Number("x", c.value, fault) }); !slices.Equal(got, want) {
			t.Errorf("%s, %v: %q, want %q", c.r, c.value, got, want)
		}
	}
	for value, want := range map[int64]string{
		0: "", 8: "", -1: "n: -1 is too small; at least 0", 9: "n: 9 is too large; at most 8", math.MaxInt64: "n: 9223372036854775807 is too large; at most 8",
	} {
		got := told(func(fault limits.Report) { limits.Range("at least 0 and at most 8").Whole("n", value, fault) })
		if fmt.Sprint(got) != fmt.Sprint([]string{want}) && !(want == "" && got == nil) {
			t.Errorf("%d: %q, want %q", value, got, want)
		}
	}
	if got := told(func(fault limits.Report) { limits.AtLeast(3).Whole("n", 2, fault) }); !slices.Equal(got, []string{"n: 2 is too small; at least 3"}) {
		t.Errorf("%q", got)
	}
}

// Words that are no range are a mistake in the source.
func TestNoRange(t *testing.T) {
	for _, r := range []limits.Range{"", "3", "at least", "at least x", "over 3", "at least 1, at most 2"} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%q is taken for a range", r)
				}
			}()
			r.Whole("n", 1, func(string, string, ...any) {})
		}()
	}
}

func TestMoCHi(t *testing.T) {
	for _, c := range []struct {
		n, s, s2, k int
		want        []string
	}{
		{0, 0, 0, 10, nil}, {10, 20, 20, 10, nil},
		{11, 0, 0, 10, []string{"mochi: N = 11 hard negatives of a queue of 10; N must not exceed queue"}},
		{11, 0, 0, 0, nil}, // the queue's fault
		{0, 0, 3, 10, []string{"mochi: 0,0,3 asks for synthetic negatives (s, s2) without hard ones to mix (N = 0)"}},
		{-1, -2, 3, 10, []string{"mochi: N = -1 must be at least 0 and at most 16777216", "mochi: s = -2 must be at least 0 and at most 16777216"}},
	} {
		if got := told(func(fault limits.Report) { limits.MoCHi(c.n, c.s, c.s2, c.k, fault) }); !slices.Equal(got, c.want) {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

func ExampleBNGroup() {
	limits.BNGroup(1, func(setting, format string, args ...any) {
		fmt.Printf(setting+": "+format+"\n", args...)
	})
	// Output: bn-group: 1: BatchNorm needs at least 2 samples in a group
}
