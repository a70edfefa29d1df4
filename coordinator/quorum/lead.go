package quorum

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"mochi/coordinator"
)

// passLimit is how long a new leader waits for its own follower to hear of what was
// committed before. One that takes longer lets another lead.
const passLimit = 10 * time.Second

// watch follows raft's word on who leads.
func (n *Node) watch(notify <-chan bool) {
	for {
		select {
		case leads := <-notify:
			n.mu.Lock()
			if n.term != nil {
				close(n.term.done)
				n.term = nil
			}
			if leads {
				n.term = &reign{done: make(chan struct{})}
			}
			close(n.changed)
			n.changed = make(chan struct{})
			n.mu.Unlock()
			n.noteLeader()
		case <-n.ctx.Done():
			n.mu.Lock()
			defer n.mu.Unlock()
			if n.term != nil {
				close(n.term.done)
				n.term = nil
			}
			return
		}
	}
}

// Lead waits until this node leads, all that was committed before has been applied, and
// Follower has been told of it. An error but ctx's means that this node cannot go on.
// After the job is over nobody leads any more who was there then. Members that were
// started after that let it go on.
func (n *Node) Lead(ctx context.Context) (*Leadership, error) {
	for {
		n.mu.Lock()
		term, changed := n.term, n.changed
		n.mu.Unlock()
		if term != nil {
			l, err := n.begin(ctx, term)
			if err == nil {
				return l, nil
			}
			n.log.Debug("leadership not begun", "err", err)
		}
		var again <-chan time.Time
		if term != nil {
			again = time.After(againAfter)
		}
		select {
		case <-changed:
		case <-again:
		case <-n.failedCh:
			return nil, n.Err()
		case <-n.ctx.Done():
			if err := n.Err(); err != nil {
				return nil, err
			}
			return nil, errors.New("this coordinator has left the group")
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// begin makes a leadership of a reign.
func (n *Node) begin(ctx context.Context, term *reign) (_ *Leadership, err error) {
	l := newLeadership(n, term.done)
	began, err := l.submit(ctx, kindBegin, nil)
	if err != nil {
		return nil, err
	}
	l.under = began
	defer func() {
		if err != nil {
			l.stop()
		}
	}()
	pass, cancel := context.WithTimeout(ctx, passLimit)
	defer cancel()
	if err := n.deliver.passed(pass, began); err != nil {
		if ctx.Err() == nil && !l.over() {
			err = fmt.Errorf("the lines that were logged before are not written here: %w", errors.Join(err, n.deliver.troubled()))
			if resigned := l.Resign(ctx); resigned != nil {
				n.log.Warn("no other coordinator takes over", "err", resigned)
			}
		}
		return nil, err
	}
	var over, known, old bool
	n.machine.read(func(s *state) { over, old, known = s.over != nil, s.overAt <= n.startedAt, len(s.lines) > 0 })
	switch {
	case over && old:
		if _, err := l.submit(ctx, kindReopen, nil); err != nil {
			return nil, err
		}
	case over: // what is left to do is to tell the others
		select {
		case <-term.done:
			return nil, coordinator.ErrFenced
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-n.ctx.Done():
			return nil, n.Err()
		}
	}
	if err := n.giveWay(ctx, l); err != nil {
		return nil, err
	}
	if !known && len(n.o.Files) > 0 {
		if err := n.bringIn(ctx, l); err != nil {
			return nil, err
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.term != term {
		return nil, coordinator.ErrFenced
	}
	n.owned.Go(l.run)
	return l, nil
}

// bringIn makes the lines that this member has from before there was a group those of
// the group. If another one has more, that one should do so.
func (n *Node) bringIn(ctx context.Context, l *Leadership) error {
	own := n.deliver.lines()
	most, name := total(own), ""
	n.asked.all(ctx)
	for _, other := range n.names {
		if other == n.o.Name {
			continue
		}
		// One that is not heard this time has what it said a moment ago. One that stays away
		// does not keep the group from beginning.
		a, at, _ := n.asked.of(other)
		if t := total(a.Lines); t > most && time.Since(at) < giveWayLimit {
			most, name = t, other
		}
	}
	if name != "" {
		if err := l.handTo(ctx, name); err != nil {
			return fmt.Errorf("coordinator %s has %d lines of before, more than this one: it should lead first: %w", name, most, err)
		}
		return coordinator.ErrFenced
	}
	lines := map[string]int64{}
	for _, file := range n.o.Files {
		lines[file] = own[file]
	}
	_, err := l.submit(ctx, kindHeld, heldEntry{Lines: lines})
	return err
}

func total(lines map[string]int64) (n int64) {
	for _, m := range lines {
		n += m
	}
	return n
}

// Leader is who leads, as far as this node knows.
func (n *Node) Leader() (Member, bool) {
	n.mu.Lock()
	r := n.raft
	n.mu.Unlock()
	if r == nil {
		return Member{}, false
	}
	_, id := r.LeaderWithID()
	m, ok := n.members[string(id)]
	return m, ok
}

// comeBack asks for the vote back, for a member whose folder was emptied.
func (n *Node) comeBack() {
	for n.membershipNow().Standing == returning {
		if leader, ok := n.Leader(); ok && leader.Name != n.o.Name {
			ctx, cancel := context.WithTimeout(n.ctx, helloLimit)
			_, err := n.ask(ctx, leader.Name, hello{Ask: askAdmit, Nonce: n.membershipNow().Nonce})
			cancel()
			if err != nil {
				n.log.Debug("no vote yet", "err", err)
			}
		}
		select {
		case <-time.After(n.o.Heartbeat):
		case <-n.ctx.Done():
			return
		}
	}
}

// applied is called when something was applied: it may be that this member votes again.
func (n *Node) applied() {
	m := n.membershipNow()
	if m.Standing != returning {
		return
	}
	admitted := false
	n.machine.read(func(s *state) { admitted = s.admitted[n.o.Name] == m.Nonce })
	if !admitted {
		return
	}
	m.Standing = voting
	if err := m.save(n.files); err != nil {
		n.log.Warn("no vote yet", "err", err)
		return // asked for again, and told again
	}
	n.mu.Lock()
	n.membership = m
	g := n.gate
	n.mu.Unlock()
	if g != nil {
		g.votes.Store(true)
	}
	n.log.Info("coordinators", "state", "this coordinator holds what the others have: it votes again")
}

// linesFromOthers asks the leader, and then the others, for lines of a file.
func (n *Node) linesFromOthers(ctx context.Context, file string, first int64) ([][]byte, error) {
	order := []string{}
	if leader, ok := n.Leader(); ok && leader.Name != n.o.Name {
		order = append(order, leader.Name)
	}
	for _, name := range n.names {
		if name != n.o.Name && (len(order) == 0 || name != order[0]) {
			order = append(order, name)
		}
	}
	var faults []error
	for _, name := range order {
		lines, err := n.fetchLines(ctx, name, file, first)
		if err == nil && len(lines) > 0 {
			return lines, nil
		}
		if err == nil {
			err = fmt.Errorf("coordinator %s does not have line %d of %s", name, first, file)
		}
		faults = append(faults, err)
	}
	return nil, errors.Join(faults...)
}

// mostTrailing is how many entries stay in the log behind a snapshot, so that a member
// that was away for a short time needs no snapshot; and how many bytes.
const (
	mostTrailing      = 10_000
	mostTrailingBytes = 64 << 20
	leastTrailing     = 64
)

// When a snapshot is made: so many entries or bytes after the last one.
const (
	snapshotEntries = 10_000
	snapshotBytes   = 64 << 20
)

// tidy makes snapshots, so that log and memory stay small.
func (n *Node) tidy() {
	tick := time.NewTicker(n.o.Heartbeat)
	defer tick.Stop()
	trailing := uint64(mostTrailing)
	for {
		select {
		case <-tick.C:
		case <-n.ctx.Done():
			return
		}
		entries, bytes, _ := n.machine.grown()
		if entries < n.o.snapshotEntries && bytes < snapshotBytes {
			continue
		}
		each := max(bytes/int64(max(entries, 1)), 1)
		want := min(max(mostTrailingBytes/uint64(each), leastTrailing), uint64(n.o.snapshotEntries))
		if want < trailing/2 || want > 2*trailing || trailing == mostTrailing && want != trailing {
			r := n.raft.ReloadableConfig()
			r.TrailingLogs = want
			if err := n.raft.ReloadConfig(r); err == nil {
				trailing = want
			}
		}
		if err := n.raft.Snapshot().Error(); err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
			n.log.Debug("no snapshot", "err", err)
			n.machine.again(entries, bytes)
		}
	}
}
