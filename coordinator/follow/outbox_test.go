package follow_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"mochi/coordinator/follow"
)

// All that is put is written once and in order, whatever a write takes of it, and Flush
// waits for what was put before it.
func TestOutbox(t *testing.T) {
	o := follow.NewOutbox[int]()
	var mu sync.Mutex
	var got []int
	stop := make(chan struct{})
	var owned sync.WaitGroup
	owned.Go(func() {
		for o.Drain(func(queue []int) int {
			n := 1 + len(queue)/2
			mu.Lock()
			defer mu.Unlock()
			got = append(got, queue[:n]...)
			return n
		}) {
			select {
			case <-o.Wake():
			case <-stop:
				return
			}
		}
	})
	var want []int
	for i := range 1000 {
		o.Put(i)
		want = append(want, i)
		if i%37 != 0 {
			continue
		}
		if err := o.Flush(t.Context(), nil, nil); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		if len(got) < len(want) || !slices.Equal(got[:len(want)], want) {
			t.Fatalf("after a flush of %d: %v", len(want), got)
		}
		mu.Unlock()
	}
	if err := o.Flush(t.Context(), nil, nil); err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v", err, got)
	}
	close(stop)
	owned.Wait()
}

// What cannot be written stays, and who waits for it is told why it waits in vain.
func TestOutboxEnds(t *testing.T) {
	o := follow.NewOutbox[string]()
	o.Put("a")
	o.Put("b")
	if o.Drain(func([]string) int { return 0 }) {
		t.Error("nothing was written, and it goes on")
	}
	why, ended := errors.New("no longer"), make(chan struct{})
	close(ended)
	if err := o.Flush(t.Context(), ended, why); !errors.Is(err, why) {
		t.Errorf("ended: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := o.Flush(ctx, nil, why); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	var got []string
	if !o.Drain(func(queue []string) int { got = append(got, queue...); return len(queue) }) || !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("later: %v", got)
	}
}
