package clustertest

import (
	"fmt"
	"testing"

	"mochi/allreduce"
	"mochi/allreduce/allreducetest"
	"mochi/coordinator/protocol"
)

// The simulated ring is a transport like any other. Here it runs in real time.
func TestRing(t *testing.T) {
	allreducetest.Conformance(t, func(t *testing.T, world int) []allreduce.Transport {
		if world == 1 {
			return []allreduce.Transport{allreduce.Solo("sim", 1)}
		}
		w := newWorld(Config{Seed: 1, Steps: 1}, Job(1), nil, 0)
		t.Cleanup(w.close)
		var round protocol.Round
		round.Round = 1
		w.mu.Lock()
		for i := range world {
			p := w.process(fmt.Sprintf("r%d", i), fmt.Sprintf("r%d", i))
			close(p.done)
			round.Members = append(round.Members, protocol.Member{ID: p.id})
		}
		w.mu.Unlock()
		var all []allreduce.Transport
		for i := range world {
			all = append(all, w.end(w.processes[i], round, i))
		}
		return all
	})
}
