package replica

import (
	"context"
	"testing"

	"mochi/coordinator/protocol"
)

// pipe is a link whose messages the test gives, and that keeps what is sent.
type pipe struct {
	Link
	down chan protocol.Message
	sent []protocol.Message
}

func (p *pipe) Messages() <-chan protocol.Message { return p.down }

func (p *pipe) Send(_ context.Context, m protocol.Message) error {
	p.sent = append(p.sent, m)
	return nil
}

// A Hello that is said after the Welcome of a new leader has come, and before it is
// handled, names that leader with its term: the new term with the old leader would be
// that of somebody who obeys another leader of this term, whom the coordinator sends
// away for many seconds.
func TestAHelloBetweenWelcomes(t *testing.T) {
	p := &pipe{down: make(chan protocol.Message)}
	r, _, _ := replicaIn(t, undecided)
	r.cfg.Link = p
	done := make(chan struct{})
	go func() { r.receive(t.Context()); close(done) }()
	say := func(term uint64, leader string) {
		p.down <- protocol.Message{Version: protocol.Version, Term: term, Welcome: &protocol.Welcome{Instance: leader, Config: smallJob()}}
	}
	say(21, "w")
	m, err := r.inbox.next(t.Context())
	if err == nil {
		_, err = r.handle(t.Context(), m)
	}
	if err != nil {
		t.Fatal(err)
	}
	say(22, "x") // comes, and waits in the inbox
	close(p.down)
	<-done
	if err := r.hello(t.Context()); err != nil {
		t.Fatal(err)
	}
	last := p.sent[len(p.sent)-1]
	if h := last.Hello; h == nil || h.Leader != "x" || last.Term != 22 {
		t.Errorf("term %d, %+v", last.Term, h)
	}
}
