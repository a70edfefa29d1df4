package jetstream

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	js "github.com/nats-io/nats.go/jetstream"

	"mochi/coordinator"
	"mochi/coordinator/protocol"
)

// mostLines is how many bytes of lines the log keeps; older ones come from the files of
// the other coordinators.
const mostLines = 64 << 20

// Last implements coordinator.Log.
func (l *Leadership) Last(ctx context.Context) (c protocol.Commit, ok bool, err error) {
	err = l.read(ctx, func(s *state) {
		if last := s.last(); last != nil {
			c, ok = *last, true
		}
	})
	return c, ok, err
}

// After implements coordinator.Log.
func (l *Leadership) After(ctx context.Context, step int64) (commits []protocol.Commit, err error) {
	err = l.read(ctx, func(s *state) {
		for _, c := range s.commits {
			if c.commit.Step > step {
				commits = append(commits, c.commit)
			}
		}
	})
	return commits, err
}

// Append implements coordinator.Log.
func (l *Leadership) Append(ctx context.Context, c protocol.Commit) error {
	err := l.put(ctx, &attempt{make: func(s *state) (*entry, error) {
		if last := s.last(); last != nil {
			if c.Step == last.Step && c.Digest == last.Digest && c.Chain == last.Chain {
				return nil, nil // its answer was lost
			}
			if err := c.Follows(*last); err != nil {
				return nil, fmt.Errorf("%w: %w", err, coordinator.ErrFenced)
			}
		}
		return commitEntry(c)
	}})
	if err != nil {
		return fmt.Errorf("append commit %d: %w", c.Step, err)
	}
	return nil
}

func commitEntry(c protocol.Commit) (*entry, error) {
	text, err := protocol.Encode(c)
	if err != nil {
		return nil, fmt.Errorf("encode commit %d: %w", c.Step, err)
	}
	return &entry{kind: kindCommit, body: text}, nil
}

// Adopt implements coordinator.Log. It is not one change: should the coordinator die on
// the way, the log ends earlier, and its successor asks the replicas again.
func (l *Leadership) Adopt(ctx context.Context, commits []protocol.Commit) error {
	for i := 1; i < len(commits); i++ {
		if err := commits[i].Follows(commits[i-1]); err != nil {
			return fmt.Errorf("adopt commits: %w", err)
		}
	}
	for _, c := range commits {
		if err := l.put(ctx, &attempt{make: func(*state) (*entry, error) { return commitEntry(c) }}); err != nil {
			return fmt.Errorf("adopt commits: %w", err)
		}
	}
	return nil
}

// Forget implements coordinator.Log. Lines go with the commits.
func (l *Leadership) Forget(ctx context.Context, step int64) error {
	var from uint64
	err := l.put(ctx, &attempt{make: func(s *state) (*entry, error) {
		if s.forgettable(step) == 0 {
			return nil, nil
		}
		return &entry{kind: kindSet + setForget, body: []byte(strconv.FormatInt(step, 10))}, nil
	}})
	if err != nil {
		return fmt.Errorf("forget commits: %w", err)
	}
	var lines uint64
	err = l.read(ctx, func(s *state) { // what stays begins there
		if len(s.commits) > 0 {
			from = s.commits[0].seq
		}
		if len(s.parts) > 0 {
			lines = s.parts[0].seq
		}
	})
	if err != nil || from == l.purged {
		return err
	}
	l.purged = from
	for subject, first := range map[string]uint64{kindCommit: from, kindLines: lines} {
		if first == 0 {
			continue
		}
		// What is left lies there until the next time.
		if err := l.g.stream.Purge(ctx, js.WithPurgeSubject(logSubject(l.g.o.Job)+subject), js.WithPurgeSequence(first)); err != nil {
			l.g.o.Log.Debug("the log has not become shorter", "err", err)
		}
	}
	return nil
}

// Lead implements coordinator.Log.
func (l *Leadership) Lead(ctx context.Context, above uint64) (term uint64, err error) {
	err = l.put(ctx, &attempt{make: func(s *state) (*entry, error) {
		term = max(s.number(setTerm), above) + 1
		return &entry{kind: kindSet + setTerm, body: strconv.AppendUint(nil, term, 10)}, nil
	}})
	return term, err
}

// set writes a setting, unless it is so already.
func (l *Leadership) set(ctx context.Context, name string, body []byte) error {
	err := l.put(ctx, &attempt{make: func(s *state) (*entry, error) {
		if old, ok := s.set[name]; ok && string(old) == string(body) {
			return nil, nil
		}
		return &entry{kind: kindSet + name, body: body}, nil
	}})
	if err != nil {
		return fmt.Errorf("remember the job's %s: %w", name, err)
	}
	return nil
}

func (l *Leadership) get(ctx context.Context, name string) (body []byte, err error) {
	err = l.read(ctx, func(s *state) { body = s.set[name] })
	return body, err
}

// Data implements coordinator.Log.
func (l *Leadership) Data(ctx context.Context) (d protocol.Data, err error) {
	body, err := l.get(ctx, setData)
	if err == nil && len(body) > 0 {
		err = json.Unmarshal(body, &d)
	}
	return d, err
}

// SaveData implements coordinator.Log.
func (l *Leadership) SaveData(ctx context.Context, d protocol.Data) error {
	body, err := json.Marshal(d)
	if err != nil {
		return err
	}
	return l.set(ctx, setData, body)
}

// Round implements coordinator.Log.
func (l *Leadership) Round(ctx context.Context) (round int64, err error) {
	err = l.read(ctx, func(s *state) { round = int64(s.number(setRound)) })
	return round, err
}

// SaveRound implements coordinator.Log.
func (l *Leadership) SaveRound(ctx context.Context, round int64) error {
	err := l.put(ctx, &attempt{make: func(s *state) (*entry, error) {
		if round <= int64(s.number(setRound)) {
			return nil, nil
		}
		return &entry{kind: kindSet + setRound, body: strconv.AppendInt(nil, round, 10)}, nil
	}})
	if err != nil {
		return fmt.Errorf("remember round %d: %w", round, err)
	}
	return nil
}

// Note implements coordinator.Log.
func (l *Leadership) Note(ctx context.Context, name string) (string, error) {
	body, err := l.get(ctx, setNote+name)
	return string(body), err
}

// SaveNote implements coordinator.Log.
func (l *Leadership) SaveNote(ctx context.Context, name, text string) error {
	if len(text) > coordinator.MaxNote {
		return fmt.Errorf("save the note %s: %d bytes, at most %d", name, len(text), coordinator.MaxNote)
	}
	return l.set(ctx, setNote+name, []byte(text))
}

// SaveConfig says of which configuration the commits are.
func (l *Leadership) SaveConfig(ctx context.Context, text string) error {
	return l.set(ctx, setConfig, []byte(text))
}

var _ coordinator.Log = (*Leadership)(nil)
