package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"time"

	"mochi/cmd/mochi/engines"
	"mochi/coordinator/natsbus"
	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/config"
	"mochi/model/figures"
)

// standIn is a replica that says all that a real one says, and computes nothing: its
// state after a step is the number of the step.
type standIn struct {
	id    string
	bus   *natsbus.Replica
	marks *marks

	instance string
	job      *config.Job
	round    *protocol.Round
	rank     int
	step     int64 // applied
	holds    bool
	pending  *protocol.Pending
	phase    string
	did      int64
	vote     *time.Timer // when it has computed the step in hand
}

func newStandIn(id string, bus *natsbus.Replica, m *marks) *standIn {
	s := &standIn{id: id, bus: bus, marks: m, phase: protocol.PhaseWaiting, vote: time.NewTimer(time.Hour)}
	s.vote.Stop()
	return s
}

func (s *standIn) run(ctx context.Context) {
	beat := time.NewTicker(protocol.HeartbeatEvery)
	defer beat.Stop()
	s.hello(ctx)
	for {
		select {
		case <-ctx.Done():
			return
		case m, open := <-s.bus.Messages():
			if !open {
				return
			}
			s.take(ctx, m)
		case <-s.vote.C:
			s.ready(ctx)
		case <-beat.C:
			h := &protocol.Heartbeat{Instance: s.instance, Step: s.step + 1, Phase: s.phase, Done: s.did}
			if s.round != nil {
				h.Round = s.round.Round
			}
			s.send(ctx, protocol.Message{Heartbeat: h})
		}
	}
}

func (s *standIn) send(ctx context.Context, m protocol.Message) {
	if err := s.bus.Send(ctx, m); err != nil && ctx.Err() == nil {
		s.marks.fail(fmt.Errorf("%s: %w", s.id, err))
	}
}

func (s *standIn) hello(ctx context.Context) {
	h := &protocol.Hello{
		ID: s.id, Name: s.id, Binary: engines.BuildIdentity(), Data: protocol.Data{Kind: "none", Train: 1 << 16, Digest: "none"},
		Engine: "none", Numerics: "none", Threads: 1, BulkURL: "nats://127.0.0.1:1", Device: "none", Pending: s.pending,
	}
	if s.job != nil {
		h.Config = s.job.Digest()
	}
	if s.holds {
		h.State = &protocol.Position{Step: s.step, Digest: s.digest(), Shards: s.shards()}
	}
	s.send(ctx, protocol.Message{Hello: h})
}

func (s *standIn) digest() string { return fmt.Sprintf("%016x", s.step) }

func (s *standIn) shards() []string {
	all := make([]string, s.job.Shards())
	for i := range all {
		all[i] = s.digest()
	}
	return all
}

func (s *standIn) take(ctx context.Context, m protocol.Message) {
	switch {
	case m.Welcome != nil:
		s.instance = m.Welcome.Instance
		if s.job == nil {
			s.job = &m.Welcome.Config
			s.hello(ctx)
		}
	case m.Again != nil:
		s.hello(ctx)
	case m.Refused != nil:
		s.marks.fail(fmt.Errorf("%s is refused: %s is %q, not %q", s.id, m.Refused.Field, m.Refused.Got, m.Refused.Want))
	case m.Stop != nil:
		s.marks.fail(errors.New("the job ended: " + m.Stop.Reason))
	case m.Round != nil:
		s.enter(m.Round)
	case m.Commit != nil && s.pending != nil && s.pending.Step == m.Commit.Step:
		s.apply(ctx, m.Commit)
	}
}

func (s *standIn) enter(r *protocol.Round) {
	s.round, s.pending, s.rank = r, nil, -1
	for rank, member := range r.Members {
		if member.ID == s.id {
			s.rank = rank
		}
	}
	if s.rank < 0 || r.Save || len(r.Trial) > 0 {
		return
	}
	s.step, s.holds = r.Step-1, true
	if len(r.Members) == s.marks.world {
		s.marks.entered(r)
	}
	s.compute()
}

// compute takes as long as the others do, and never quite the same.
func (s *standIn) compute() {
	s.phase = protocol.PhaseComputing
	s.vote.Reset(time.Until(s.marks.due(s.step + 1).Add(-time.Duration(rand.Int64N(int64(s.marks.period/20 + 1))))))
}

func (s *standIn) ready(ctx context.Context) {
	step := s.step + 1
	v := &protocol.Ready{
		Round: s.round.Round, Step: step, Digest: fmt.Sprintf("%016x", step*step), BusyMS: 400,
		Phases: map[string]float64{
			"load": 1.25, "key_forward": 100.123456, "gather": 2.345678, "query": 200.345678, "loss": 20.456789,
			"backward": 300.567891, "reduce": 50.678912, "digest": 1.789123, "sums": 0.891234,
		},
	}
	for _, g := range s.round.Members[s.rank].Groups {
		v.Groups = append(v.Groups, protocol.GroupReport{Group: g, Figures: figures.Figures{
			Loss: 7.123456789 + float64(g), Proxy: 2, ProxyHard: 1, PosSim: 3.23456789, NegSim: 0.0123456789, HardestSim: 2.3456789, HardSim: 1.456789, Spread: 0.98765,
		}})
	}
	s.pending = &protocol.Pending{Round: v.Round, Step: step, Digest: v.Digest}
	s.phase = protocol.PhaseReady
	s.did++
	s.marks.voted(step)
	s.send(ctx, protocol.Message{Ready: v})
}

func (s *standIn) apply(ctx context.Context, c *protocol.Commit) {
	s.marks.committed(c.Step)
	s.step, s.pending = c.Step, nil
	s.did++
	s.send(ctx, protocol.Message{Applied: &protocol.Applied{
		Round: c.Round, Step: c.Step, Digest: s.digest(), StateDigest: s.digest(), Shards: s.shards(),
	}})
	s.phase = protocol.PhaseWaiting
	if s.round != nil && s.round.Round == c.Round && !c.EndRound {
		s.compute()
	}
}

// userHz is how Linux counts processor time for /proc.
const userHz = 100

// processorTime is that of a process so far.
func processorTime(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// After the name, which is in parentheses: state is the first field, utime the
	// 12th, stime the 13th.
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(string(f), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/%d/stat: %w", pid, err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / userHz, nil
}

// memoryOf is what a process holds now, and has held at most, in MiB.
func memoryOf(pid int) (rss, peak float64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range bytes.Lines(text) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		kb, err := strconv.ParseFloat(string(bytes.TrimSuffix(bytes.TrimSpace(value), []byte(" kB"))), 64)
		switch {
		case string(name) == "VmRSS" && err == nil:
			rss = kb / 1024
		case string(name) == "VmHWM" && err == nil:
			peak = kb / 1024
		}
	}
	return rss, peak, nil
}
