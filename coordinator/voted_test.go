package coordinator

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"mochi/coordinator/protocol"
)

// An upload that comes before its step is closed waits for it, one of a closed
// step does not, and one whose step nobody ever closes is refused in the end.
func TestAnUploadWaitsForItsStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVotes()
		v.close(3)
		type answer struct {
			Voted
			err error
		}
		ask := func(ctx context.Context, step int64) chan answer {
			c := make(chan answer, 1)
			go func() {
				voted, err := v.after(ctx, step)
				c <- answer{voted, err}
			}()
			synctest.Wait()
			return c
		}
		if a := <-ask(t.Context(), 3); a.err == nil {
			t.Errorf("step 3, closed before, of which nobody said anything: %+v", a)
		}
		early := ask(t.Context(), 5)
		v.report(4, Voted{Digest: "four"})
		synctest.Wait()
		if len(early) != 0 {
			t.Errorf("step 5 was told before it was closed: %+v", <-early)
		}
		v.report(5, Voted{Digest: "five", Shards: []string{"a"}})
		if a := <-early; a.err != nil || a.Digest != "five" || len(a.Shards) != 1 {
			t.Errorf("step 5: %+v", a)
		}
		if a := <-ask(t.Context(), 4); a.Digest != "four" {
			t.Errorf("step 4 afterwards: %+v", a)
		}
		v.report(5, Voted{}) // recorded once more, by nobody
		v.covered(5)
		if a := <-ask(t.Context(), 5); a.Digest != "five" {
			t.Errorf("step 5 once it is covered: %+v", a)
		}
		if a := <-ask(t.Context(), 4); a.err == nil {
			t.Errorf("step 4 once step 5 is covered: %+v", a)
		}

		ctx, cancel := context.WithCancel(t.Context())
		left := ask(ctx, 9)
		cancel()
		if a := <-left; !errors.Is(a.err, context.Canceled) {
			t.Errorf("an upload that ended: %+v", a)
		}
		began := time.Now()
		if a := <-ask(t.Context(), 9); a.err == nil || time.Since(began) != votedWithin {
			t.Errorf("step 9, never closed: %+v after %s", a, time.Since(began))
		}
	})
}

// An upload of a step that an earlier coordinator committed waits until the replicas of
// that time have been heard, and then is what most of them say.
func TestAnUploadOfAnEarlierCoordinatorsStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVotes()
		v.inherit(7)
		v.close(7)
		answer := make(chan error, 1)
		var voted Voted
		go func() {
			var err error
			voted, err = v.after(t.Context(), 5)
			answer <- err
		}()
		synctest.Wait()
		v.hear("a", protocol.Position{Step: 5, Digest: "five", Shards: []string{"x", ""}})
		v.hear("b", protocol.Position{Step: 5, Digest: "other", Shards: []string{"y", "y"}})
		v.hear("c", protocol.Position{Step: 5, Digest: "five", Shards: []string{"", "z"}})
		synctest.Wait()
		if len(answer) != 0 {
			t.Fatalf("it did not wait: %v", <-answer)
		}
		v.settle()
		if err := <-answer; err != nil || voted.Digest != "five" || !slices.Equal(voted.Shards, []string{"x", "z"}) {
			t.Errorf("%+v, %v", voted, err)
		}
		v.hear("a", protocol.Position{Step: 6, Digest: "six"})
		v.hear("b", protocol.Position{Step: 6, Digest: "6"})
		for _, step := range []int64{6, 7} { // they differ; nobody said a thing
			if voted, err := v.after(t.Context(), step); err == nil {
				t.Errorf("step %d: %+v", step, voted)
			}
		}
	})
}
