package replica

import "testing"

func TestRuns(t *testing.T) {
	for want, numbers := range map[string][]int{
		"": nil, "7": {7}, "0-3": {0, 1, 2, 3}, "0-1 3 5-7": {0, 1, 3, 5, 6, 7}, "2 4 6": {2, 4, 6},
	} {
		if got := runs(numbers); got != want {
			t.Errorf("%v: %q, want %q", numbers, got, want)
		}
	}
}
