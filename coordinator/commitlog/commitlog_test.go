package commitlog_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"mochi/coordinator"
	"mochi/coordinator/commitlog"
	"mochi/coordinator/protocol"
	"mochi/coordinator/wal"
	"mochi/coordinator/wal/waltest"
	"mochi/model/figures"
)

// chain makes n commits of one history behind another's last commit.
func chain(before protocol.Commit, n int, salt string) (commits []protocol.Commit) {
	for range n {
		c := protocol.Commit{
			Step: before.Step + 1, Cursor: before.Cursor + int64(before.Batch), Batch: 8, Term: 1, LR: 0.03,
			Digest: fmt.Sprint(salt, before.Step+1),
			Groups: []protocol.GroupReport{{Group: 0, Figures: figures.Figures{Loss: 1.25}}},
		}
		c.Chain = c.Link(before.Chain)
		commits, before = append(commits, c), c
	}
	return commits
}

func open(t *testing.T, files wal.Files) (*commitlog.Log, commitlog.Found) {
	t.Helper()
	l, found, err := commitlog.Open(files, commitlog.Options{Wal: wal.Options{SegmentBytes: 8000}})
	if err != nil {
		t.Fatal(err)
	}
	return l, found
}

func appendAll(t *testing.T, l *commitlog.Log, commits []protocol.Commit) {
	t.Helper()
	for _, c := range commits {
		if err := l.Append(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
}

func all(t *testing.T, l *commitlog.Log) []protocol.Commit {
	t.Helper()
	commits, err := l.After(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	last, ok, err := l.Last(t.Context())
	if err != nil || ok != (len(commits) > 0) || ok && !reflect.DeepEqual(last, commits[len(commits)-1]) {
		t.Fatalf("the last of %d commits: %+v %v %v", len(commits), last, ok, err)
	}
	if ok && l.First() != commits[0].Step {
		t.Fatalf("the first commit is %d, not %d", commits[0].Step, l.First())
	}
	return commits
}

func TestWhatIsAppendedComesBack(t *testing.T) {
	disk := waltest.New(1)
	l, _ := open(t, disk)
	want := chain(protocol.Commit{}, 30, "g")
	ctx := t.Context()
	for i, c := range want {
		appendAll(t, l, []protocol.Commit{c, c}) // once more: its answer was lost
		if err := errors.Join(l.SaveRound(ctx, int64(i)), l.SaveNote(ctx, "jury", fmt.Sprint("note ", i)), l.SaveNote(ctx, "gone", "x")); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.SaveNote(ctx, "gone", ""); err != nil {
		t.Fatal(err)
	}
	if err := l.SaveNote(ctx, "jury", strings.Repeat("x", coordinator.MaxNote+1)); err == nil {
		t.Error("a note that is too long was taken")
	}
	data := protocol.Data{Kind: "idx", Train: 10, Classes: 2, Digest: "d"}
	if err := errors.Join(l.SaveData(ctx, data), l.SaveConfig("cfg"), l.SaveRound(ctx, 7)); err != nil {
		t.Fatal(err)
	}
	if term, err := l.Lead(ctx, 0); term != 1 || err != nil {
		t.Fatalf("term %d, %v", term, err)
	}
	if term, err := l.Lead(ctx, 8); term != 9 || err != nil {
		t.Fatalf("term %d, %v", term, err)
	}
	for range 2 {
		if got := all(t, l); !reflect.DeepEqual(got, want) {
			t.Fatalf("%d commits", len(got))
		}
		if got, err := l.After(ctx, 27); err != nil || !reflect.DeepEqual(got, want[27:]) {
			t.Fatalf("after 27: %v %v", got, err)
		}
		d, _ := l.Data(ctx)
		if r, _ := l.Round(ctx); d != data || r != 29 || l.Config() != "cfg" {
			t.Fatalf("%+v, round %d, config %q", d, r, l.Config())
		}
		if n, _ := l.Note(ctx, "jury"); n != "note 29" || len(l.Notes()) != 1 {
			t.Fatalf("note %q of %v", n, l.Notes())
		}
		var found commitlog.Found
		if l, found = open(t, disk); found.Damage != "" {
			t.Fatal(found)
		}
	}
	if term, _ := l.Lead(ctx, 0); term != 10 {
		t.Fatalf("term %d after 9", term)
	}
	for _, c := range []protocol.Commit{want[3], chain(want[20], 1, "g")[0], chain(want[29], 1, "x")[0]} {
		if c.Step == 31 {
			c.Chain = "of another history"
		}
		if err := l.Append(ctx, c); !errors.Is(err, coordinator.ErrFenced) {
			t.Errorf("commit %d behind commit 30: %v", c.Step, err)
		}
	}
}

// TestAdopt takes the commits of somebody else: a longer end, another end, a history
// whose beginning is not known.
func TestAdopt(t *testing.T) {
	ours := chain(protocol.Commit{}, 20, "g")
	for name, c := range map[string]struct{ adopt, want []protocol.Commit }{
		"the same and more":    {chain(ours[9], 20, "g"), append(slices.Clone(ours[:10]), chain(ours[9], 20, "g")...)},
		"more":                 {chain(ours[19], 5, "g"), append(slices.Clone(ours), chain(ours[19], 5, "g")...)},
		"another end":          {chain(ours[9], 4, "h"), append(slices.Clone(ours[:10]), chain(ours[9], 4, "h")...)},
		"another history":      {chain(protocol.Commit{}, 30, "h")[10:], chain(protocol.Commit{}, 30, "h")[10:]},
		"much later":           {chain(protocol.Commit{}, 3000, "g")[2000:], chain(protocol.Commit{}, 3000, "g")[2000:]},
		"another from step 1":  {chain(protocol.Commit{}, 7, "h"), chain(protocol.Commit{}, 7, "h")},
		"nothing":              {nil, ours},
		"what is there at all": {ours, ours},
	} {
		t.Run(name, func(t *testing.T) {
			disk := waltest.New(1)
			l, _ := open(t, disk)
			appendAll(t, l, ours)
			if _, err := l.Lead(t.Context(), 4); err != nil {
				t.Fatal(err)
			}
			if err := l.Adopt(t.Context(), c.adopt); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if got := all(t, l); !reflect.DeepEqual(got, c.want) {
					t.Fatalf("%d commits from %d on, want %d from %d on", len(got), got[0].Step, len(c.want), c.want[0].Step)
				}
				disk.Crash()
				var found commitlog.Found
				if l, found = open(t, disk); found.Damage != "" {
					t.Fatal(found)
				}
			}
			more := chain(c.want[len(c.want)-1], 3, "z")
			appendAll(t, l, more)
			if l, _ = open(t, disk); !reflect.DeepEqual(all(t, l), append(slices.Clone(c.want), more...)) {
				t.Fatal("what was appended behind it is not there")
			}
			if term, _ := l.Lead(t.Context(), 0); term != 6 {
				t.Fatalf("term %d", term)
			}
		})
	}
	l, _ := open(t, waltest.New(1))
	if err := l.Adopt(t.Context(), []protocol.Commit{ours[3], ours[5]}); err == nil {
		t.Fatal("adopted commits with a gap")
	}
}

// TestCrashes stops the machine at every call of random histories: what was
// acknowledged is there, and settings never go back.
func TestCrashes(t *testing.T) {
	for seed := range uint64(4) {
		for at := 1; ; at++ {
			disk := waltest.New(seed<<20 + uint64(at))
			ops := 0
			disk.Before = func(waltest.Op) error {
				if ops++; ops == at {
					return waltest.ErrCrashed
				}
				return nil
			}
			rng := rand.New(rand.NewPCG(seed, 4))
			var acked, other []protocol.Commit
			var term uint64
			ctx := context.Background()
			l, _, err := commitlog.Open(disk, commitlog.Options{Wal: wal.Options{SegmentBytes: 2000}})
			for i := 0; err == nil && i < 30; i++ {
				before := protocol.Commit{}
				if n := len(acked); n > 0 {
					before = acked[n-1]
				}
				switch other = nil; rng.IntN(6) {
				case 0:
					var next uint64
					if next, err = l.Lead(ctx, 0); err == nil {
						term = next
					}
				case 1:
					keep := rng.IntN(len(acked) + 1)
					if before = (protocol.Commit{}); keep > 0 {
						before = acked[keep-1]
					}
					adopt := chain(before, 1+rng.IntN(5), fmt.Sprint("a", i))
					other = append(slices.Clone(acked[:keep]), adopt...)
					if err = l.Adopt(ctx, adopt); err == nil {
						acked = other
					}
				default:
					next := chain(before, 1, "g")
					other = append(slices.Clone(acked), next...)
					if err = l.Append(ctx, next[0]); err == nil {
						acked = other
					}
				}
			}
			if err == nil {
				break
			}
			if !errors.Is(err, waltest.ErrCrashed) {
				t.Fatalf("seed %d, call %d: %v", seed, at, err)
			}
			disk.Crash()
			l, found := open(t, disk)
			if got := all(t, l); found.Damage != "" || !same(got, acked) && !same(got, other) {
				t.Fatalf("seed %d, call %d: %d commits, %d acknowledged, or %d: %s", seed, at, len(got), len(acked), len(other), found.Damage)
			}
			if next, _ := l.Lead(ctx, 0); next <= term {
				t.Fatalf("seed %d, call %d: term %d after %d", seed, at, next, term)
			}
		}
	}
}

func same(a, b []protocol.Commit) bool {
	return len(a) == len(b) && (len(a) == 0 || reflect.DeepEqual(a, b))
}

// TestDamage flips a bit in every 7th byte of the files, and removes each: the log
// that is opened then is a part of the history in one piece, reaches to its end unless
// the damage does, and the files as they were are kept.
func TestDamage(t *testing.T) {
	history := chain(protocol.Commit{}, 60, "g")
	fresh := func() *waltest.Disk {
		disk := waltest.New(1)
		l, _ := open(t, disk)
		if _, err := l.Lead(t.Context(), 41); err != nil {
			t.Fatal(err)
		}
		appendAll(t, l, history)
		return disk
	}
	names, _ := fresh().List()
	lastSegment := names[len(names)-2]
	for _, name := range names {
		size := len(fresh().Content(name))
		for at := -1; at < size; at += 7 {
			disk := fresh()
			bad := disk.Content(name)
			if at >= 0 {
				bad[at] ^= 0x10
			} else {
				bad = nil
			}
			disk.Put(name, bad)
			l, found := open(t, disk)
			if found.Damage == "" || !strings.Contains(found.Damage, name) {
				t.Fatalf("byte %d of %s: found %+v", at, name, found)
			}
			got := all(t, l)
			if n := len(got); n > 0 && !same(got, history[got[0].Step-1:got[0].Step-1+int64(n)]) {
				t.Fatalf("byte %d of %s: %d commits from %d on are not the history", at, name, n, got[0].Step)
			}
			if reach := len(got) > 0 && got[len(got)-1].Step == 60; !reach && name != lastSegment {
				t.Fatalf("byte %d of %s: the end is lost: %+v", at, name, found)
			}
			var kept int
			all, _ := disk.List()
			for _, n := range all {
				if strings.HasPrefix(n, strings.TrimSuffix(found.Kept, "*")) {
					kept++
				}
			}
			if want := len(names); kept != want && (at >= 0 || kept != want-1) {
				t.Fatalf("byte %d of %s: %d of %d files kept: %q", at, name, kept, want, all)
			}
			if _, again := open(t, disk); again.Damage != "" {
				t.Fatalf("byte %d of %s: opened again: %+v", at, name, again)
			}
		}
	}
}

// TestForget bounds a log of many steps, whatever its length, and what is left proves
// what is gone.
func TestForget(t *testing.T) {
	disk := waltest.New(1)
	l, _, err := commitlog.Open(disk, commitlog.Options{Wal: wal.Options{SegmentBytes: 64 << 10}})
	if err != nil {
		t.Fatal(err)
	}
	var last protocol.Commit
	most := 0
	history := map[int64]string{}
	for step := int64(1); step <= 20_000; step++ {
		last = chain(last, 1, "g")[0]
		history[step] = last.Chain
		if err := l.Append(t.Context(), last); err != nil {
			t.Fatal(err)
		}
		if step%500 == 0 {
			if err := l.Forget(t.Context(), step-500); err != nil {
				t.Fatal(err)
			}
			size := 0
			names, _ := disk.List()
			for _, n := range names {
				size += len(disk.Content(n))
			}
			most = max(most, size)
		}
	}
	if most > 2<<20 {
		t.Errorf("%d bytes", most)
	}
	l, found := open(t, disk)
	commits := all(t, l)
	if found.Damage != "" || len(commits) < commitlog.Keep || len(commits) > 4*commitlog.Keep || commits[len(commits)-1].Step != 20_000 {
		t.Fatalf("%d commits, %+v", len(commits), found)
	}
	if first := commits[0]; first.Chain != history[first.Step] {
		t.Error("the first commit that is kept does not prove those before it")
	}
	appendAll(t, l, chain(last, 2, "g"))
}

func TestFullDisk(t *testing.T) {
	full := fmt.Errorf("2 MB free: %w", coordinator.ErrDiskFull)
	var room error
	l, _, err := commitlog.Open(waltest.New(1), commitlog.Options{Room: func() error { return room }})
	if err != nil {
		t.Fatal(err)
	}
	commits := chain(protocol.Commit{}, 3, "g")
	appendAll(t, l, commits[:2])
	room = full
	if err := l.Append(t.Context(), commits[2]); !errors.Is(err, coordinator.ErrDiskFull) {
		t.Fatal(err)
	}
	if err := l.SaveRound(t.Context(), 3); !errors.Is(err, coordinator.ErrDiskFull) {
		t.Fatal(err)
	}
	room = nil
	appendAll(t, l, commits[2:])
	if got := all(t, l); !same(got, commits) {
		t.Fatalf("%d commits", len(got))
	}
}

func TestErrorsAreTriedAgain(t *testing.T) {
	disk := waltest.New(1)
	l, _ := open(t, disk)
	commits := chain(protocol.Commit{}, 50, "g")
	rng := rand.New(rand.NewPCG(2, 2))
	disk.Before = func(op waltest.Op) error {
		if rng.IntN(8) == 0 {
			return syscall.EIO
		}
		return nil
	}
	for _, c := range commits {
		for l.Append(t.Context(), c) != nil {
		}
	}
	disk.Before = nil
	disk.Crash()
	l, _ = open(t, disk)
	if got := all(t, l); !same(got, commits) {
		t.Fatalf("%d commits", len(got))
	}
}
