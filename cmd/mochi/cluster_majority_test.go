package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mochi/coordinator/protocol"
)

// status is what mochi status says, asked at the address of one coordinator alone.
func (s *standing) status(name string) (st protocol.Status) {
	s.Helper()
	address := strings.Split(s.join, ",")[slices.Index(s.names, name)]
	p := start(s.T, "status", "--join", address, "--json", "--timeout", "3s")
	if status := p.wait(); status != 0 {
		return st // nobody answers yet
	}
	if err := json.Unmarshal(p.out.Bytes(), &st); err != nil {
		s.Fatalf("%v in %s", err, p.out.String())
	}
	return st
}

// With one coordinator of three nothing is committed, and mochi status says why and
// since when. With a second one the job goes on; the third, which has lost its folder,
// gets all of it from the others.
func TestCoordinatorsWithoutAMajority(t *testing.T) {
	data := writeIDX(t, t.TempDir(), 100, 20)
	const n = 150
	whole := filepath.Join(t.TempDir(), "whole")
	mochi(t, append([]string{"train", "--data", data, "--out", whole, "--steps", fmt.Sprint(n)}, tiny...)...)
	s := newStanding(t, data, "--steps", fmt.Sprint(n), "--checkpoint-every", "20")
	s.all(1)
	s.await("step 30", func() bool { return s.last() >= 30 })
	leader := s.leader()
	others := slices.DeleteFunc(slices.Clone(s.names), func(name string) bool { return name == leader })
	left, emptied := others[0], others[1]
	if st := s.status(left); st.Group == nil || st.Group.Leader != leader || len(st.Group.Members) != 3 || st.Step == 0 {
		t.Errorf("asked at %s, who stands by: %+v", left, st.Group)
	}
	s.coordinators[emptied].kill()
	s.coordinators[leader].kill()
	s.await("word that there is no majority", func() bool {
		g := s.status(left).Group
		return g != nil && g.Leader == "" && g.Since != "" && strings.Contains(g.Trouble, "majority")
	})
	at := len(steps(t, s.states[left]))
	s.coordinator(leader)
	s.await("a commit of two", func() bool { return len(steps(t, s.states[left])) > at })
	if err := os.RemoveAll(s.states[emptied]); err != nil {
		t.Fatal(err)
	}
	s.coordinator(emptied)
	for name, c := range s.coordinators {
		if status := c.wait(); status != 0 {
			t.Errorf("%s ended with %d:\n%s", name, status, c.errs.String())
		}
	}
	s.replicas[0].mustEnd(0)
	s.mustEndLike(whole, n)
}

// All coordinators lose their folders while a replica lives: commits and state come back
// from it, and the job goes on.
func TestCoordinatorsLoseAll(t *testing.T) {
	data := writeIDX(t, t.TempDir(), 100, 20)
	const n = 150
	whole := filepath.Join(t.TempDir(), "whole")
	mochi(t, append([]string{"train", "--data", data, "--out", whole, "--steps", fmt.Sprint(n)}, tiny...)...)
	s := newStanding(t, data, "--steps", fmt.Sprint(n), "--checkpoint-every", "20")
	s.all(1)
	s.await("step 40", func() bool { return s.last() >= 40 })
	for _, c := range s.coordinators {
		c.kill()
	}
	for _, state := range s.states {
		if err := os.RemoveAll(state); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range s.names {
		s.coordinator(name)
	}
	for name, c := range s.coordinators {
		if status := c.wait(); status != 0 {
			t.Errorf("%s ended with %d:\n%s", name, status, c.errs.String())
		}
	}
	s.replicas[0].mustEnd(0)
	for _, state := range s.states {
		mustEqual(t, whole, state)
	}
}
