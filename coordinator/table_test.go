package coordinator

import (
	"slices"
	"testing"

	"mochi/coordinator/round"
)

// lasting are the states in which an input can arrive.
func lasting() (list []round.State) {
	for s := range round.State(round.States) {
		if s != round.Over && s != round.Finished {
			list = append(list, s)
		}
	}
	return list
}

// Every input has a verdict in every state, and the two states without inputs
// have none.
func TestTableIsComplete(t *testing.T) {
	for k := range kind(kinds) {
		for _, s := range lasting() {
			if inputs[k][s] == "" {
				t.Errorf("what is done with %s while %s?", k, s)
			}
		}
		if v := inputs[k][round.Over] + inputs[k][round.Finished]; v != "" {
			t.Errorf("%s is %s in a state that takes nothing", k, v)
		}
	}
}

// An input that cannot arrive shows a broken caller.
func TestNeverPanics(t *testing.T) {
	c := NewCore(CoreConfig{})
	defer func() {
		if recover() == nil {
			t.Error("a failed append that nobody asked for was taken")
		}
	}()
	c.Step(c.now, AppendFailed{Step: 1})
}

// seen counts the inputs of histories that the table takes, by the state in
// which they came.
type seen [kinds][round.States]int

// note counts an input that is about to be given to a core.
func (n *seen) note(c *Core, in Input) {
	if m, ok := in.(Received); ok && in.kind() != hello && in.kind() != drain && c.roster.Get(m.Message.From) == nil {
		return // asked to say Hello
	}
	if s := c.course.State(); inputs[in.kind()][s] == take {
		n[in.kind()][s]++
	}
}

// elsewhere are inputs about a log that is lost or not the newest. The model of a disk
// does not lose anything: testdata/recall*.txt and package clustertest do.
var elsewhere = []kind{recalled, led, adopted}

// missing lists what is taken according to the table and never came.
func (n *seen) missing() (list []string) {
	for k := range kind(kinds) {
		for _, s := range lasting() {
			if !slices.Contains(elsewhere, k) && inputs[k][s] == take && n[k][s] == 0 {
				list = append(list, k.String()+" while "+s.String())
			}
		}
	}
	return list
}
