package quorum

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"mochi/coordinator"
	"mochi/coordinator/commitlog"
	"mochi/coordinator/protocol"
	"mochi/coordinator/wal/waltest"
)

// history is n commits behind another.
func history(before protocol.Commit, n int, salt string) (commits []protocol.Commit) {
	for range n {
		before = next(before, salt)
		commits = append(commits, before)
	}
	return commits
}

// TestContract asks the same of the log of one coordinator and of that of three.
func TestContract(t *testing.T) {
	for name, do := range contract {
		t.Run(name+"/files", func(t *testing.T) {
			l, _, err := commitlog.Open(waltest.New(1), commitlog.Options{})
			if err != nil {
				t.Fatal(err)
			}
			do(t, l)
		})
		t.Run(name+"/group", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 3, 1)
				w.startAll()
				_, l := w.lead()
				do(t, l)
				w.end()
			})
		})
	}
}

// appendAll appends commits, each twice: an answer may be lost.
func appendAll(t *testing.T, l coordinator.Log, commits []protocol.Commit) {
	t.Helper()
	for _, c := range commits {
		if err := errors.Join(l.Append(context.Background(), c), l.Append(context.Background(), c)); err != nil {
			t.Fatal(err)
		}
	}
}

// holds says whether a log has exactly these commits.
func holds(t *testing.T, l coordinator.Log, want []protocol.Commit) {
	t.Helper()
	got, err := l.After(context.Background(), 0)
	last, ok, lastErr := l.Last(context.Background())
	if err := errors.Join(err, lastErr); err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) || len(want) > 0 && !reflect.DeepEqual(got, want) {
		t.Fatalf("%d commits, want %d", len(got), len(want))
	}
	if ok != (len(want) > 0) || ok && !reflect.DeepEqual(last, want[len(want)-1]) {
		t.Fatalf("the last of %d commits is %d (%v)", len(want), last.Step, ok)
	}
}

// contract is what coordinator.Log promises, by what it is about.
var contract = map[string]func(t *testing.T, l coordinator.Log){
	"commits": func(t *testing.T, l coordinator.Log) {
		holds(t, l, nil)
		all := history(protocol.Commit{}, 20, "g")
		appendAll(t, l, all)
		holds(t, l, all)
		for step, want := range map[int64]int{-1: 20, 0: 20, 7: 13, 19: 1, 20: 0, 99: 0} {
			if got, err := l.After(context.Background(), step); err != nil || len(got) != want || want > 0 && got[0].Step != max(step, 0)+1 {
				t.Errorf("after step %d: %d commits, %v", step, len(got), err)
			}
		}
		other := next(all[19], "x")
		other.Chain = "of another history"
		for _, c := range []protocol.Commit{all[3], next(next(all[19], "g"), "g"), other} {
			if err := l.Append(context.Background(), c); !errors.Is(err, coordinator.ErrFenced) {
				t.Errorf("commit %d behind commit 20: %v", c.Step, err)
			}
		}
		holds(t, l, all)
	},
	"a history without its beginning": func(t *testing.T, l coordinator.Log) {
		all := history(protocol.Commit{}, 30, "g")[10:]
		appendAll(t, l, all)
		holds(t, l, all)
	},
	"adopt": func(t *testing.T, l coordinator.Log) {
		ours := history(protocol.Commit{}, 20, "g")
		appendAll(t, l, ours)
		for _, step := range []struct{ adopt, want []protocol.Commit }{
			{nil, ours},
			{ours, ours},
			{history(ours[9], 4, "h"), append(slices.Clone(ours[:10]), history(ours[9], 4, "h")...)},
			{history(ours[9], 20, "g"), append(slices.Clone(ours[:10]), history(ours[9], 20, "g")...)},
			{history(protocol.Commit{}, 3000, "g")[2000:], history(protocol.Commit{}, 3000, "g")[2000:]},
			{history(protocol.Commit{}, 7, "h"), history(protocol.Commit{}, 7, "h")},
		} {
			if err := l.Adopt(context.Background(), step.adopt); err != nil {
				t.Fatal(err)
			}
			holds(t, l, step.want)
		}
		if err := l.Adopt(context.Background(), []protocol.Commit{ours[3], ours[5]}); err == nil {
			t.Error("adopted commits with a gap")
		}
		appendAll(t, l, history(history(protocol.Commit{}, 7, "h")[6], 3, "z"))
	},
	"forget": func(t *testing.T, l coordinator.Log) {
		all := history(protocol.Commit{}, 3500, "g")
		if err := l.Adopt(context.Background(), all); err != nil {
			t.Fatal(err)
		}
		for _, step := range []int64{500, 3500} { // the first is not worth it
			if err := l.Forget(context.Background(), step); err != nil {
				t.Fatal(err)
			}
			got, err := l.After(context.Background(), 0)
			if err != nil {
				t.Fatal(err)
			}
			if n := len(got); n < commitlog.Keep || step == 500 && n != 3500 || step == 3500 && n > 2*commitlog.Keep || !reflect.DeepEqual(got, all[3500-n:]) {
				t.Fatalf("%d commits after Forget(%d)", n, step)
			}
		}
		appendAll(t, l, history(all[3499], 2, "g"))
	},
	"terms": func(t *testing.T, l coordinator.Log) {
		for _, c := range []struct{ above, want uint64 }{{0, 1}, {0, 2}, {8, 9}, {3, 10}} {
			if term, err := l.Lead(context.Background(), c.above); err != nil || term != c.want {
				t.Errorf("Lead(%d): %d, %v; want %d", c.above, term, err, c.want)
			}
		}
	},
	"settings": func(t *testing.T, l coordinator.Log) {
		ctx := context.Background()
		d, err := l.Data(ctx)
		r, err2 := l.Round(ctx)
		n, err3 := l.Note(ctx, "n")
		if err := errors.Join(err, err2, err3); err != nil || d != (protocol.Data{}) || r != 0 || n != "" {
			t.Fatal(d, r, n, err)
		}
		data := protocol.Data{Kind: "idx", Train: 10, Classes: 2, Digest: "d"}
		if err := errors.Join(l.SaveData(ctx, data), l.SaveRound(ctx, 7), l.SaveRound(ctx, 3), l.SaveNote(ctx, "n", "one"), l.SaveNote(ctx, "gone", "x"), l.SaveNote(ctx, "gone", "")); err != nil {
			t.Fatal(err)
		}
		if err := l.SaveNote(ctx, "n", strings.Repeat("x", coordinator.MaxNote+1)); err == nil {
			t.Error("a note that is too long was taken")
		}
		d, _ = l.Data(ctx)
		r, _ = l.Round(ctx)
		n, _ = l.Note(ctx, "n")
		if gone, _ := l.Note(ctx, "gone"); d != data || r != 7 || n != "one" || gone != "" {
			t.Error(d, r, n, gone)
		}
	},
	"large": func(t *testing.T, l coordinator.Log) {
		c := next(protocol.Commit{}, "large")
		for g := range 2048 {
			c.Groups = append(c.Groups, protocol.GroupReport{Group: g})
		}
		all := []protocol.Commit{c}
		for i := range 20 {
			d := next(all[i], fmt.Sprint("large", i))
			d.Groups = c.Groups
			all = append(all, d)
		}
		appendAll(t, l, all)
		holds(t, l, all)
		if err := l.Adopt(context.Background(), all[3:]); err != nil {
			t.Fatal(err)
		}
		holds(t, l, all)
	},
}
