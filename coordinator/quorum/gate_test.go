package quorum

import (
	"errors"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/raft"

	"mochi/coordinator"
	"mochi/coordinator/protocol"
	"mochi/coordinator/wal"
	"mochi/coordinator/wal/waltest"
)

// testStore is a log with entries 1 to n, all of term 3.
func testStore(t *testing.T, disk *waltest.Disk, n uint64) *store {
	t.Helper()
	log, err := wal.Open(disk, wal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r, _, err := openReach(waltest.New(2))
	if err != nil {
		t.Fatal(err)
	}
	s := newStore(log, r)
	s.covered, s.fail, s.ended = func() uint64 { return 0 }, func(error) {}, t.Context().Done()
	for i := range n {
		if err := s.StoreLog(&raft.Log{Index: i + 1, Term: 3, Data: []byte{byte(i)}}); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// TestGate shows the gate what raft must not see.
func TestGate(t *testing.T) {
	var failed error
	s := testStore(t, waltest.New(1), 10)
	s.fail = func(err error) { failed = err }
	g := &gate{store: s, applied: func() uint64 { return 6 }, term: func() uint64 { return 3 }}
	ask := func(command any) (bool, raft.RPCResponse) {
		answer := make(chan raft.RPCResponse, 1)
		if !g.refuse(raft.RPC{Command: command, Reader: strings.NewReader("snapshot"), RespChan: answer}) {
			return false, raft.RPCResponse{}
		}
		return true, <-answer
	}
	// What has no vote gives none and takes no leadership.
	for _, c := range []any{&raft.RequestVoteRequest{}, &raft.RequestPreVoteRequest{}, &raft.TimeoutNowRequest{}} {
		g.votes.Store(false)
		if refused, a := ask(c); !refused || !errors.Is(a.Error, errNoVote) {
			t.Errorf("%T without a vote: %v %v", c, refused, a)
		}
		g.votes.Store(true)
		if refused, _ := ask(c); refused {
			t.Errorf("%T with a vote is refused", c)
		}
	}
	s.take(12)
	if refused, _ := ask(&raft.TimeoutNowRequest{}); !refused || g.mayLead() {
		t.Error("a member that believes in entries it does not have may lead")
	}
	s.take(0)
	// Entries.
	ok := &raft.AppendEntriesRequest{Term: 4, PrevLogEntry: 8, LeaderCommitIndex: 50, Entries: []*raft.Log{{Index: 9, Term: 3}, {Index: 10, Term: 4}}}
	if refused, _ := ask(ok); refused || ok.LeaderCommitIndex != 10 {
		t.Errorf("entries: refused %v, committed up to %d", refused, ok.LeaderCommitIndex)
	}
	none := &raft.AppendEntriesRequest{Term: 4, PrevLogEntry: 8, LeaderCommitIndex: 50}
	if refused, _ := ask(none); refused || none.LeaderCommitIndex != 8 {
		t.Errorf("no entries: refused %v, committed up to %d", refused, none.LeaderCommitIndex)
	}
	later := &raft.AppendEntriesRequest{Term: 4, PrevLogEntry: 8, Entries: []*raft.Log{{Index: 9, Term: 5}}}
	if refused, a := ask(later); !refused || !errors.Is(a.Error, errLater) {
		t.Errorf("entries of a later term: %v %v", refused, a)
	}
	// What is applied and no longer in the log is what the leader has.
	if err := s.DeleteRange(1, 4); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		ask     raft.AppendEntriesRequest
		prev    uint64
		entries int
	}{
		"begins in the log":        {raft.AppendEntriesRequest{Term: 3, PrevLogEntry: 5, Entries: []*raft.Log{{Index: 6, Term: 3}}}, 5, 1},
		"begins before it":         {raft.AppendEntriesRequest{Term: 3, PrevLogEntry: 4, Entries: []*raft.Log{{Index: 5, Term: 3}, {Index: 6, Term: 3}, {Index: 7, Term: 3}}}, 0, 1},
		"ends before it":           {raft.AppendEntriesRequest{Term: 3, PrevLogEntry: 2, Entries: []*raft.Log{{Index: 3, Term: 3}}}, 0, 0},
		"begins with the first":    {raft.AppendEntriesRequest{Term: 3, Entries: []*raft.Log{{Index: 1, Term: 3}}}, 0, 0},
		"of an old leader":         {raft.AppendEntriesRequest{Term: 2, PrevLogEntry: 4, Entries: []*raft.Log{{Index: 5, Term: 2}}}, 4, 1},
		"behind what is applied":   {raft.AppendEntriesRequest{Term: 3, PrevLogEntry: 20, Entries: []*raft.Log{{Index: 21, Term: 3}}}, 20, 1},
		"a heartbeat without more": {raft.AppendEntriesRequest{Term: 3}, 0, 0},
	} {
		if refused, _ := ask(&c.ask); refused || c.ask.PrevLogEntry != c.prev || len(c.ask.Entries) != c.entries {
			t.Errorf("a request that %s: refused %v, behind entry %d, %d entries", name, refused, c.ask.PrevLogEntry, len(c.ask.Entries))
		}
	}
	// Snapshots: raft sees those of what is not here, and those of leaders that are none.
	for name, c := range map[string]struct {
		snapshot raft.InstallSnapshotRequest
		refused  bool
	}{
		"news":              {raft.InstallSnapshotRequest{Term: 3, LastLogIndex: 11, LastLogTerm: 3}, false},
		"what is applied":   {raft.InstallSnapshotRequest{Term: 3, LastLogIndex: 5, LastLogTerm: 3}, true},
		"what is here":      {raft.InstallSnapshotRequest{Term: 4, LastLogIndex: 9, LastLogTerm: 3}, true},
		"of an old leader":  {raft.InstallSnapshotRequest{Term: 2, LastLogIndex: 5, LastLogTerm: 2}, false},
		"of other contents": {raft.InstallSnapshotRequest{Term: 4, LastLogIndex: 9, LastLogTerm: 4}, true},
	} {
		failed = nil
		refused, a := ask(&c.snapshot)
		if refused != c.refused {
			t.Errorf("a snapshot of %s: refused %v", name, refused)
		}
		if other := name == "of other contents"; other != (failed != nil) || refused && !other && !a.Response.(*raft.InstallSnapshotResponse).Success {
			t.Errorf("a snapshot of %s: %v, failed %v", name, a, failed)
		}
	}
}

// TestWriteFailsAfterACut: raft takes entries back and stores others in their place. When
// that fails it believes that the old ones are there, and so they must be, or something
// that is replaced the next time.
func TestWriteFailsAfterACut(t *testing.T) {
	disk := waltest.New(1)
	s := testStore(t, disk, 10)
	s.limit.at = writeLimit / 1000
	var stands atomic.Bool
	broken := errors.New("broken")
	disk.Before = func(op waltest.Op) error {
		if stands.Load() && op.Call == "write" && !strings.HasSuffix(op.Name, ".tmp") {
			return broken
		}
		return nil
	}
	stands.Store(true)
	if err := s.DeleteRange(8, 10); err != nil {
		t.Fatal(err)
	}
	var l raft.Log
	if err := s.GetLog(9, &l); err != nil || l.Term != 3 {
		t.Fatalf("an entry that nothing has taken the place of: %+v %v", l, err)
	}
	if err := s.StoreLogs([]*raft.Log{{Index: 8, Term: 4}}); !errors.Is(err, errSlow) {
		t.Fatal(err)
	}
	for !s.broken() { // it goes on trying
		runtime.Gosched()
	}
	if err := s.GetLog(9, &l); err != nil || l.Term != 0 {
		t.Errorf("an entry that was taken back: %+v %v", l, err)
	}
	stands.Store(false)
	s.limit.at = writeLimit
	if err := s.StoreLogs([]*raft.Log{{Index: 9, Term: 4}}); err != nil {
		t.Fatal(err)
	}
	for i, want := range map[uint64]uint64{7: 3, 8: 4, 9: 4} {
		if err := s.GetLog(i, &l); err != nil || l.Term != want {
			t.Errorf("entry %d: %+v %v", i, l, err)
		}
	}
	if err := s.GetLog(10, &l); !errors.Is(err, raft.ErrLogNotFound) || s.broken() {
		t.Errorf("entry 10: %v", err)
	}
	if err := s.StoreLog(&raft.Log{Index: 20, Term: 4}); err == nil {
		t.Error("a gap that no snapshot covers was taken")
	}
	s.covered = func() uint64 { return 19 }
	if err := s.StoreLog(&raft.Log{Index: 20, Term: 4}); err != nil || s.wal.First() != 20 {
		t.Errorf("behind a snapshot: %v, the log begins with %d", err, s.wal.First())
	}
}

// TestEntriesOfAnotherLeadership count no more, and what cannot be right ends the member.
func TestEntriesOfAnotherLeadership(t *testing.T) {
	s := newState()
	first := next(protocol.Commit{}, "g")
	apply := func(term uint64, kind byte, under uint64, body string) error {
		e, err := decodeEntry(append([]byte{kind, byte(under)}, body...))
		if err != nil {
			return err
		}
		_, _, err = s.apply(term, e)
		return err
	}
	if err := apply(5, kindRound, 4, `{"round":9}`); !errors.Is(err, coordinator.ErrFenced) || s.settings.Round != 0 {
		t.Errorf("an entry of another leadership: %v, round %d", err, s.settings.Round)
	}
	if err := apply(5, kindRound, 5, `{"round":9}`); err != nil || s.settings.Round != 9 {
		t.Errorf("an entry of this leadership: %v, round %d", err, s.settings.Round)
	}
	s.last = &first
	for body, want := range map[string]error{`{"step":7}`: errDiverged, `{`: errEntry} {
		if err := apply(5, kindCommit, 5, body); !errors.Is(err, want) {
			t.Errorf("commit %s: %v", body, err)
		}
	}
	for _, data := range []string{"", "\x01", "\x01\xff"} {
		if _, err := decodeEntry([]byte(data)); !errors.Is(err, errEntry) {
			t.Errorf("%q is an entry: %v", data, err)
		}
	}
	if err := apply(5, 99, 5, "{}"); !errors.Is(err, errEntry) {
		t.Errorf("an unknown kind: %v", err)
	}
	if err := apply(5, kindLines, 5, "\x05ab"); !errors.Is(err, errEntry) {
		t.Errorf("lines that end early: %v", err)
	}
}
