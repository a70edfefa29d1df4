package coordinator

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
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
		if a := <-ask(t.Context(), 3); a.err != nil || a.Digest != "" {
			t.Errorf("step 3, closed before: %+v", a)
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
		if a := <-ask(t.Context(), 4); a.err != nil || a.Digest != "" {
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
