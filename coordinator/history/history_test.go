package history_test

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"mochi/coordinator/history"
	"mochi/coordinator/protocol"
)

// commits are those of steps from…to of a job with batches of 10.
func commits(from, to int64) (list []protocol.Commit) {
	for step := from; step <= to; step++ {
		list = append(list, protocol.Commit{Step: step, Cursor: 10 * (step - 1), Batch: 10, Digest: fmt.Sprintf("g%d", step)})
	}
	return list
}

// A coordinator that starts again stands at the end of the log, and knows the
// steps after the checkpoint.
func TestInherited(t *testing.T) {
	tail := commits(4, 6)
	h := history.New(&history.Checkpoint{Name: "c", Step: 3, Cursor: 30}, &tail[2], tail)
	if h.At() != 6 || h.Head() != 6 || !h.Inherited() {
		t.Errorf("at %d of %d", h.At(), h.Head())
	}
	for step, want := range map[int64]int64{0: 0, 3: 30, 4: 40, 6: 60} {
		if got, ok := h.CursorAfter(step); !ok || got != want || !h.Has(step) {
			t.Errorf("after step %d: %d, %v", step, got, ok)
		}
	}
	for _, step := range []int64{1, 2, 7} {
		if h.Has(step) {
			t.Errorf("step %d is not remembered", step)
		}
	}
	if !h.Restorable(0) || !h.Restorable(3) || h.Restorable(6) {
		t.Error("only the seed and the checkpoint need no replica")
	}
	next := commits(7, 7)[0]
	h.Append(&next)
	if h.Head() != 7 || h.At() != 6 || h.Inherited() || h.Last() != &next {
		t.Errorf("the log has step 7, the job stands at %d until it is published", h.At())
	}
}

// A checkpoint makes older commits unnecessary, but not those that are being
// run again; one older than what is there is of no use.
func TestStore(t *testing.T) {
	tail := commits(1, 5)
	h := history.New(nil, &tail[4], tail)
	h.StandAt(2, "s2") // steps 3…5 are run again
	if h.Digest() != "s2" || !h.Store("five", 5) {
		t.Error("a checkpoint of the log's end")
	}
	if _, ok := h.Logged(1); ok {
		t.Error("step 1 is covered")
	}
	if digest, ok := h.Logged(3); !ok || digest.Digest != "g3" {
		t.Errorf("step 3 is compared with %+v", digest)
	}
	if h.Store("four", 4) || h.Store("nine", 9) || h.Checkpoint().Name != "five" || h.Checkpoint().Cursor != 50 {
		t.Errorf("%+v", h.Checkpoint())
	}
}

// The states of an upload: none, on its way, owed, spoiled.
func TestUpload(t *testing.T) {
	now := time.Unix(1e9, 0)
	var u history.Upload
	if u.Wanted() || u.Owed() || u.Of(0) || u.OnItsWay(0) {
		t.Error("none is wanted at first")
	}
	u.LostBy("", now) // nobody
	u.Ask(7, "a", now)
	u.LostBy("b", now)
	u.FailedBy("a", 6, now)
	u.SpoilFrom("b", 7)
	u.Spoil(6)
	if !u.OnItsWay(7) || u.OnItsWay(6) || u.Owed() {
		t.Errorf("what others do is not its matter: %+v", u)
	}
	later := now.Add(time.Second)
	u.FailedBy("a", 7, later)
	if !u.Owed() || !u.Since().Equal(later) || !u.Wanted() {
		t.Errorf("a could not send it: %+v", u)
	}
	u.AskAnother("b", later)
	u.SpoilFrom("b", 7)
	if u.Stored(7); !u.Owed() {
		t.Error("what b sent is wrong: it is wanted again")
	}
	u.AskAnother("c", later)
	if u.Stored(6); !u.Wanted() {
		t.Error("an older one does not do")
	}
	if u.Stored(8); u.Wanted() {
		t.Error("a later one does")
	}
	u.Ask(9, "a", now)
	u.Moves("b", 8, later)
	if !u.Since().Equal(now) || !u.Sent() || u.Missed() {
		t.Errorf("b's upload is not a's: %+v", u)
	}
	u.Moves("a", 8, later) // 9 comes after it
	if !u.Since().Equal(later) {
		t.Errorf("a gets on: %+v", u)
	}
	u.Leave()
	if u.Stored(9); u.Wanted() || !u.Missed() {
		t.Errorf("the one that was left out is still to come: %+v", u)
	}
	if u.Ask(11, "a", later); u.Missed() {
		t.Errorf("that is the one: %+v", u)
	}
}

// A job that went back to a checkpoint stands at a known step although a later
// checkpoint, which was on its way, becomes the newest.
func TestStandsAtOlderCheckpoint(t *testing.T) {
	commit := func(step int64) protocol.Commit {
		return protocol.Commit{Step: step, Cursor: 10 * (step - 1), Batch: 10, Digest: "g"}
	}
	last := commit(7)
	h := history.New(&history.Checkpoint{Name: "five", Step: 5, Cursor: 50}, &last, []protocol.Commit{commit(6), commit(7)})
	h.StandAt(5, "")
	if !h.Store("seven", 7) {
		t.Fatal("the later one is of use")
	}
	if cursor, ok := h.CursorAfter(5); !ok || cursor != 50 {
		t.Errorf("after step 5, where the job stands: %d samples, %v", cursor, ok)
	}
	if digest, ok := h.Logged(5); ok {
		t.Errorf("nobody knows that the log has %q of step 5", digest.Digest)
	}
}

// What is remembered of a commit is all that a replica applies it by: whoever was told of it
// may have to give it back. Groups, and what was said to one replica alone, are left out.
func TestCommitIsWhole(t *testing.T) {
	c := protocol.Commit{
		Step: 1, Round: 2, Term: 3, Chain: "c", Epoch: 4, Cursor: 5, Batch: 6, QueueStart: 7, LR: 0.125, Momentum: 0.5, Digest: "d",
	}
	full := c
	full.Groups, full.Seal, full.EndRound, full.Checkpoint, full.Final = []protocol.GroupReport{{Group: 1}}, "s", true, true, true
	h := history.New(nil, &full, []protocol.Commit{full})
	got := h.Commit(1)
	if got == nil || !reflect.DeepEqual(*got, c) {
		t.Errorf("%+v, want %+v", got, c)
	}
	if got.LR = 9; h.Commit(1).LR != c.LR {
		t.Error("who is given it has changed it")
	}
	for i := range reflect.TypeFor[protocol.Commit]().NumField() { // a field that comes later is not forgotten
		if f := reflect.TypeFor[protocol.Commit]().Field(i); reflect.ValueOf(full).Field(i).IsZero() {
			t.Errorf("%s is not in this test", f.Name)
		}
	}
}
