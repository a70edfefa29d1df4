package main

import (
	"strings"
	"testing"
)

// Five samples in batches of two: the third step straddles two epochs.
const good = `{"step":1,"epoch":0,"round":1,"samples":[3,0]}
{"step":2,"epoch":0,"round":1,"samples":[4,2]}
{"step":3,"epoch":0,"round":2,"samples":[1,2]}
{"step":4,"epoch":1,"round":2,"samples":[0,1]}
`

func TestCheck(t *testing.T) {
	for _, in := range []string{good, good + `{"step":5,"epoch":1,"rou`} {
		got, err := check(strings.NewReader(in), 5)
		if want := (summary{steps: 4, drawn: 8, firstRound: 1, lastRound: 2}); err != nil || got != want {
			t.Errorf("check = %+v, %v; want %+v", got, err, want)
		}
	}
}

func TestCheckFinds(t *testing.T) {
	for _, c := range []struct{ what, old, new, says string }{
		{"a lost step", `{"step":2,"epoch":0,"round":1,"samples":[4,2]}` + "\n", "", "step 3 follows step 1"},
		{"a repeated step", `{"step":3,`, `{"step":2,`, "step 2 follows step 2"},
		{"a round that goes back", `"round":1,"samples":[4`, `"round":9,"samples":[4`, "round 2 follows round 9"},
		{"a repeated sample", `[4,2]`, `[4,3]`, "sample 3 was drawn in step 1"},
		{"a sample that is not there", `[4,2]`, `[4,5]`, "sample 5 of 5"},
		{"a batch of another epoch", `"step":4,"epoch":1`, `"step":4,"epoch":0`, "epoch 0"},
		{"an empty step", `[4,2]`, `[]`, "no samples"},
		{"no JSON", `{"step":2`, `"step":2`, "after step 1"},
		{"nothing", good, "", "no complete line"},
	} {
		in := strings.Replace(good, c.old, c.new, 1)
		if _, err := check(strings.NewReader(in), 5); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: error %v, want %q", c.what, err, c.says)
		}
	}
}
