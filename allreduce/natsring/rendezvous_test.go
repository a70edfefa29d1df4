package natsring_test

import (
	"fmt"
	"sync"
	"testing"

	"mochi/allreduce/natsring"
)

func TestRendezvous(t *testing.T) {
	const world = 3
	s := newServer(t)
	r, err := natsring.NewRendezvous(s, world)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for rank := range world {
		all.Go(func() {
			m, err := natsring.JoinRendezvous(s.URL(), rank, world)
			if err != nil {
				t.Error(err)
				return
			}
			defer m.Close()
			for _, name := range []string{"first", "second"} {
				got, err := m.Meet(t.Context(), name, fmt.Appendf(nil, "%s %d", name, rank))
				if err != nil || len(got) != world {
					t.Errorf("rank %d: %q, %v", rank, got, err)
					return
				}
				for other, data := range got {
					if want := fmt.Sprintf("%s %d", name, other); string(data) != want {
						t.Errorf("rank %d got %q from rank %d", rank, data, other)
					}
				}
			}
		})
	}
	got, err := r.Wait(t.Context(), "second")
	if err != nil || len(got) != world {
		t.Errorf("the parent got %q, %v", got, err)
	}
	all.Wait()

	stranger, err := natsring.JoinRendezvous(s.URL(), 0, world+1)
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	if _, err := stranger.Meet(t.Context(), "third", nil); err == nil {
		t.Error("a rank of another world was let in")
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}
