package replica

import (
	"context"
	"errors"
	"testing"

	"mochi/allreduce"
	"mochi/coordinator/protocol"
)

// lookRing is a ring in whose collectives a test looks around.
type lookRing struct {
	Ring
	look func() error
}

func (r lookRing) AllGather(context.Context, allreduce.Tag, []float32, []int) error { return r.look() }
func (r lookRing) AllReduceSumChecked(context.Context, allreduce.Tag, []float32, *allreduce.Check) error {
	return r.look()
}
func (r lookRing) AllReduceMax(context.Context, allreduce.Tag, []float32) error { return r.look() }
func (r lookRing) Broadcast(context.Context, allreduce.Tag, int, []byte) error  { return r.look() }

// A collective is progress once it has ended well, and whoever waits in it does
// not hang: other members do. Sums beside the last backward hide no hang.
func TestCollectivesAreProgress(t *testing.T) {
	for _, background := range []bool{false, true} {
		var p progress
		var fails error
		p.phase(1, 2, protocol.PhaseComputing)
		w := p.ring(lookRing{look: func() error {
			if got := p.now().Peers; got == background {
				t.Errorf("background %v: waits for peers: %v", background, got)
			}
			return fails
		}})
		var r Ring = w
		if background {
			r = w.background()
		}
		collectives := []func() error{
			func() error { return r.AllGather(t.Context(), allreduce.Tag{}, nil, nil) },
			func() error { return r.AllReduceSumChecked(t.Context(), allreduce.Tag{}, nil, nil) },
			func() error { return r.AllReduceMax(t.Context(), allreduce.Tag{}, nil) },
			func() error { return r.Broadcast(t.Context(), allreduce.Tag{}, 0, nil) },
		}
		for i, collective := range collectives {
			fails = nil
			if err := collective(); err != nil || p.now().Done != int64(i+1) || p.now().Peers {
				t.Errorf("after collective %d: %v, %+v", i, err, p.now())
			}
			fails = errors.New("cut")
			if err := collective(); !errors.Is(err, fails) || p.now().Done != int64(i+1) || p.now().Peers {
				t.Errorf("after a failed collective: %v, %+v", err, p.now())
			}
		}
	}
}

// What goes wrong in a round is put down to whom it belongs to.
func TestFailureNamesWhoseFault(t *testing.T) {
	m := &membership{rank: 1, Round: protocol.Round{Round: 7, Members: []protocol.Member{{ID: "a"}, {ID: "b"}, {ID: "c"}}}}
	peer := func(rank, origin int, cause error) error {
		return &allreduce.PeerError{Rank: rank, Origin: origin, Round: 7, Op: "connect", Err: cause}
	}
	for _, c := range []struct {
		name string
		err  error
		want protocol.Failed
	}{
		{"a neighbour that does not answer", peer(2, 1, allreduce.ErrTimeout), protocol.Failed{Suspect: "c"}},
		{"what another member found", peer(2, 0, allreduce.ErrDown), protocol.Failed{Suspect: "c", Follows: true}},
		{"one that gave up for a reason of its own", peer(0, 1, allreduce.ErrAborted), protocol.Failed{Follows: true}},
		{"a rank that is none", peer(9, 1, allreduce.ErrTimeout), protocol.Failed{}},
		{"a ring that does not open", &ringError{errors.New("x")}, protocol.Failed{}},
		{"a download", &givenError{errors.New("x")}, protocol.Failed{}},
		{"a damaged shard", &damagedError{3}, protocol.Failed{Damaged: []int{3}}},
		{"a deal that does not fit", &dealError{errors.New("x")}, protocol.Failed{Fatal: true}},
		{"anything else", errors.New("out of memory"), protocol.Failed{Leaves: true}},
	} {
		got := failure(m, c.err)
		if got.Round != 7 || got.Error != c.err.Error() || got.Suspect != c.want.Suspect || got.Follows != c.want.Follows ||
			got.Fatal != c.want.Fatal || got.Leaves != c.want.Leaves || len(got.Damaged) != len(c.want.Damaged) {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}
