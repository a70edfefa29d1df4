package clustertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"mochi/coordinator/protocol"
	"mochi/replica/checkpoint"
)

// Checkpoints travel in pieces, each acknowledged before the next, and sent
// again when the answer does not come.
const (
	pieces       = 8
	stallTimeout = 60 * time.Second // without progress an upload or a download is given up
)

// upload is one on its way in.
type upload struct {
	server *server
	from   string // the replica's id
	pipe   *io.PipeWriter
	ended  bool          // save has returned
	err    error         // of save
	done   chan struct{} // closed when it has ended
}

// Upload stores a checkpoint at the coordinator. How long a piece takes is the
// host's Uplink.
func (c *client) Upload(ctx context.Context, step int64, state []byte) error {
	w := c.p.w
	if err := c.p.pass("upload", ""); err != nil {
		return err
	}
	state, err := c.p.flipped(state)
	if err != nil {
		return err
	}
	var in *upload
	moved := w.now()
	for sent := 0; ; {
		w.mu.Lock()
		piece := w.uplink(c.p.name)
		s := c.coordinator()
		w.mu.Unlock()
		ok, err := c.p.roundTrip(ctx, c.host(), piece)
		if err != nil {
			return err
		}
		w.mu.Lock()
		answers := ok && s != nil && !s.p.dead && s.serving && s.p.paused == nil
		switch {
		case !answers:
		case in == nil, in.server != s: // a coordinator that was started again has nothing
			if err := s.wants(c.id, step); errors.Is(err, protocol.ErrNotYet) {
				answers = false
				moved = w.now()
			} else if err != nil {
				w.mu.Unlock()
				return err
			} else {
				in, sent = s.begin(c.id, step), 0
			}
		case in.ended:
			w.mu.Unlock()
			return in.err
		}
		w.mu.Unlock()
		if !answers {
			if w.now()-moved > stallTimeout {
				return fmt.Errorf("no answer from the coordinator for the checkpoint of step %d", step)
			}
			if err := c.p.wait(ctx, 100*time.Millisecond); err != nil {
				return err
			}
			continue
		}
		moved = w.now()
		if err := in.take(ctx, c.p, state[sent*len(state)/pieces:(sent+1)*len(state)/pieces]); err != nil {
			return err
		}
		if sent++; sent < pieces {
			continue
		}
		in.pipe.Close()
		select {
		case <-in.done:
			return in.err
		case <-ctx.Done():
			return ctx.Err()
		case <-c.p.ctx.Done():
			return errDead
		case <-s.p.ctx.Done():
			in, sent = nil, 0 // again, to the next one
		}
	}
}

// Uploader is the host of the replica whose checkpoint is on its way, "" for none.
func (w *World) Uploader() string {
	w.mu.Lock()
	from := ""
	for _, s := range w.servers {
		if s.saving != nil {
			from = s.saving.from
		}
	}
	w.mu.Unlock()
	if from == "" {
		return ""
	}
	return w.hostOf(from)
}

// take hands a piece on, at the speed of who reads it.
func (u *upload) take(ctx context.Context, p *Process, piece []byte) error {
	for _, end := range []context.Context{ctx, p.ctx} {
		stop := context.AfterFunc(end, func() { u.pipe.CloseWithError(context.Canceled) })
		defer stop()
	}
	_, err := u.pipe.Write(piece)
	return err
}

// begin starts an upload in place of the one before. The lock is held.
func (s *server) begin(from string, step int64) *upload {
	before := s.saving
	if before != nil {
		before.pipe.CloseWithError(protocol.ErrSuperseded)
	}
	in, out := io.Pipe()
	u := &upload{server: s, from: from, pipe: out, done: make(chan struct{})}
	s.saving = u
	stop := context.AfterFunc(s.p.ctx, func() { out.CloseWithError(errDead) })
	go func() {
		defer stop()
		if before != nil {
			<-before.done // one at a time works on the folder
		}
		err := s.save(s.p.ctx, from, step, in)
		in.CloseWithError(errors.Join(errors.New("the checkpoint was not stored"), err))
		s.p.w.mu.Lock()
		u.ended, u.err = true, err
		if s.saving == u {
			s.saving = nil
		}
		s.p.w.mu.Unlock()
		close(u.done)
	}()
	return u
}

// Download reads a checkpoint.
func (c *client) Download(ctx context.Context, name string) ([]byte, error) {
	if err := c.p.pass("download", ""); err != nil {
		return nil, err
	}
	w := c.p.w
	for moved := w.now(); w.now()-moved < stallTimeout; {
		w.mu.Lock()
		s, piece := c.coordinator(), w.uplink(c.p.name)
		w.mu.Unlock()
		ok, err := c.p.roundTrip(ctx, c.host(), pieces*piece)
		if err != nil {
			return nil, err
		}
		w.mu.Lock()
		answers := ok && s != nil && !s.p.dead && s.serving && s.p.paused == nil
		w.mu.Unlock()
		if answers {
			f, err := s.open(name)
			if err != nil {
				return nil, err
			}
			defer f.Close()
			return io.ReadAll(f)
		}
		if err := c.p.wait(ctx, 100*time.Millisecond); err != nil {
			return nil, err
		}
	}
	return nil, errors.New("no answer from the coordinator")
}

// DamageUpload changes one bit of a parameter in the next checkpoint that a host
// sends, before it is written: faulty memory, which no digest of the file shows.
func (w *World) DamageUpload(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.links.flips[name] = true
}

// flipped is a state, or what faulty memory makes of it.
func (p *Process) flipped(state []byte) ([]byte, error) {
	w := p.w
	w.mu.Lock()
	flip := w.links.flips[p.name]
	w.links.flips[p.name] = false
	w.mu.Unlock()
	if !flip {
		return state, nil
	}
	s, err := checkpoint.Read(bytes.NewReader(state))
	if err != nil {
		return nil, err
	}
	s.QueryParams[0] = math.Float32frombits(math.Float32bits(s.QueryParams[0]) ^ 1<<3)
	var out bytes.Buffer
	err = checkpoint.Write(&out, s)
	return out.Bytes(), err
}

// Uplink makes every piece of a checkpoint to or from a host take so much longer.
func (w *World) Uplink(name string, piece time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.links.uplinks[name] = piece
}

// uplink is what a piece takes. The lock is held.
func (w *World) uplink(name string) time.Duration { return w.links.uplinks[name] }
