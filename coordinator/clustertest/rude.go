package clustertest

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"mochi/coordinator/protocol"
)

// Rude is a member without good will: it has a token, so it is heard, and it says what a
// history makes it say. It computes nothing. When the coordinator sends it home it goes.
type Rude struct {
	w    *World
	p    *Process
	past []protocol.Commit // that it gives when it is asked for commits
}

// rudeBeats is how often it shows that it is there.
const rudeBeats = time.Second

// Rude starts one on the host of a name. It says the Hello that another replica has said,
// in its own name, with what claims changes in it; and again when it is asked to.
func (w *World) Rude(name string, claims func(h *protocol.Hello)) *Rude {
	w.apart()
	w.mu.Lock()
	p := w.process(name, fmt.Sprintf("%s-%d", name, len(w.processes)))
	w.check.evil[name] = true // nothing that it says need be true
	c := w.connect(p)
	w.note(p, "starts, and is rude", 0)
	w.mu.Unlock()
	r := &Rude{w: w, p: p}
	p.run(func(ctx context.Context) error {
		greet := func() error {
			w.mu.Lock()
			h := w.greeting
			w.mu.Unlock()
			h.ID, h.Name, h.Config, h.Uploading, h.State, h.Pending = p.id, name, "", 0, nil, nil
			claims(&h)
			return c.Send(ctx, protocol.Message{Hello: &h, Term: w.term()})
		}
		if err := greet(); err != nil {
			return err
		}
		for {
			select {
			case <-ctx.Done():
				return nil
			case m := <-c.Messages():
				switch {
				case m.Stop != nil, m.Refused != nil:
					return nil
				case m.Again != nil:
					if err := greet(); err != nil {
						return err
					}
				case m.Recall != nil:
					if err := c.Send(ctx, protocol.Message{Recalled: r.recalled(m.Recall.From)}); err != nil {
						return err
					}
				}
			case <-time.After(rudeBeats):
				if err := c.Send(ctx, protocol.Message{Heartbeat: &protocol.Heartbeat{Phase: protocol.PhaseWaiting}}); err != nil {
					return err
				}
			}
		}
	})
	return r
}

// Forges makes it claim that it keeps commits of a later leader from a step on, n of them,
// in place of those of the log or after them, and give them when they are asked for. They
// are such as the log's, but for their digests.
func (w *World) Forges(name string, from int64, n int) *Rude {
	w.mu.Lock()
	var forged []protocol.Commit
	chain := ""
	var like protocol.Commit
	for _, e := range w.disk.commits {
		if err := json.Unmarshal(e.data, &like); err != nil {
			panic(err)
		}
		if like.Step < from {
			chain = like.Chain
		}
	}
	for i := range int64(n) {
		c := like
		c.Step, c.Term, c.Digest = from+i, like.Term+1, "forged"
		c.Cursor = (c.Step - 1) * int64(c.Batch)
		c.Chain = c.Link(chain)
		chain = c.Chain
		forged = append(forged, c)
	}
	w.mu.Unlock()
	r := w.Rude(name, func(h *protocol.Hello) {
		head := forged[n-1].Head(forged[0].Step)
		h.Head, h.State = &head, &protocol.Position{Step: head.Step, Digest: "forged"}
	})
	w.mu.Lock()
	r.past = forged
	w.mu.Unlock()
	return r
}

func (r *Rude) recalled(from int64) *protocol.Recalled {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	answer := &protocol.Recalled{From: from, Commits: []protocol.Commit{}}
	for _, c := range r.past {
		if c.Step >= from {
			answer.Commits = append(answer.Commits, c)
		}
	}
	return answer
}

// term is that of the last commit.
func (w *World) term() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.disk.term
}

// Uploads sends a checkpoint that is none, as that of a step, again and again until it
// goes; refused is how often it was told no.
func (r *Rude) Uploads(step int64, refused *int) {
	go func() {
		for r.p.ctx.Err() == nil {
			r.w.mu.Lock()
			c := r.p.client
			r.w.mu.Unlock()
			if err := c.Upload(r.p.ctx, step, make([]byte, 8<<10)); err != nil && r.p.ctx.Err() == nil {
				r.w.mu.Lock()
				*refused++
				r.w.mu.Unlock()
			}
			_ = r.p.wait(r.p.ctx, 50*time.Millisecond)
		}
	}()
}
