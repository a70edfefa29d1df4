package coordinator

import (
	"context"
	"fmt"
	"time"

	"mochi/coordinator/protocol"
)

// linger is how long replicas have to hear Stop before the server goes, and
// lingerForAbsent how long those have to come that were with an earlier coordinator:
// they look for one every 0.2 s, if their host answers.
const (
	linger          = time.Second
	lingerForAbsent = 5 * time.Second
)

// farewell is who is still to hear the end of the job.
type farewell struct {
	told    map[string]bool // sent home; true: and not gone yet
	absent  map[string]bool // of the last round, and not here yet
	unknown bool            // nobody has said who those are
}

// over says whether all have heard it and are gone.
func (f *farewell) over() bool {
	for _, here := range f.told {
		if here {
			return false
		}
	}
	return !f.waits()
}

// waits says whether somebody is still to come.
func (f *farewell) waits() bool { return len(f.absent) > 0 || f.unknown }

// hears notes that a replica was told, and what it says of the others.
func (f *farewell) hears(m protocol.Message) {
	f.told[m.From] = true
	if m.Hello != nil && f.unknown && len(m.Hello.Members) > 0 {
		f.unknown = false
		for _, id := range m.Hello.Members {
			if _, told := f.told[id]; !told {
				f.absent[id] = true
			}
		}
	}
	delete(f.absent, m.From)
}

// sendHome lets the replicas hear the end before the bus is closed.
func (s *Server) sendHome(ctx context.Context, f Finish) error {
	if f.Short {
		return fmt.Errorf("%w: %s", ErrLogShort, f.Reason)
	}
	if f.Fenced {
		return fmt.Errorf("%w: %s", ErrFenced, f.Reason)
	}
	if err := s.cfg.Bus.Flush(ctx); err != nil {
		s.log.Warn("replicas may not have heard the end", "err", err)
	}
	s.bidFarewell(ctx, f)
	if f.Failed {
		return fmt.Errorf("%w: %s", ErrJobFailed, f.Reason)
	}
	return nil
}

// bidFarewell waits until all who are to hear the end have heard it and are gone, or for
// as long as that may take.
func (s *Server) bidFarewell(ctx context.Context, f Finish) {
	still := farewell{told: s.core.roster.IDs(), absent: map[string]bool{}, unknown: f.Unknown}
	for _, id := range f.Absent {
		still.absent[id] = true
	}
	timeout := time.NewTimer(linger)
	defer timeout.Stop()
	if still.waits() {
		s.log.Info("waiting for replicas that have not heard the end of the job", "most", lingerForAbsent)
		timeout.Reset(lingerForAbsent)
	}
	for !still.over() {
		select {
		case <-ctx.Done():
			return
		case <-timeout.C:
			return
		case <-s.writer.done: // and what is queued behind it gets its turn
		case id := <-s.cfg.Bus.Lost():
			if still.told[id] {
				still.told[id] = false
			}
		case m, open := <-s.cfg.Bus.Messages(): // their last heartbeats
			if !open {
				return
			}
			// Of one that was given up, or that comes only now: without a word
			// it would wait for a coordinator for ever.
			if m.From == "" || still.told[m.From] || m.Validate(s.bounds) != nil {
				continue
			}
			waited := still.waits()
			still.hears(m)
			s.send(Send{m.From, protocol.Message{Version: protocol.Version, Stop: &protocol.Stop{Reason: f.Reason, Failed: f.Failed}}})
			if waited && !still.waits() {
				timeout.Reset(linger)
			}
		}
	}
}
