package allreduce

import (
	"fmt"
	"time"
)

// housekeeping sends what is due whatever the Group is doing: heartbeats,
// acknowledgements and, at the end, the word that it has ended. It also
// notices a neighbour's silence.
func (g *Group) housekeeping() {
	interval := max(g.cfg.Timeout/4, time.Millisecond)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	last, excused := g.now(), int64(0)
	for {
		select {
		case <-g.ended:
			g.lastWords(tick.C)
			return
		case <-g.in.ackDue:
			g.send(Backward, header{kind: kindAck, seq: g.in.arrived.Load()}, nil)
		case <-tick.C:
			now := g.now()
			if now-last > 2*int64(interval) {
				excused = now // this process itself was not running: give the handlers time to catch up
			}
			last = now
			g.send(Forward, header{kind: kindBeat, seq: g.out.sent.Load()}, nil)
			g.send(Backward, header{kind: kindGrant, seq: g.in.consumed.Load()}, nil)
			g.checkPulse(&g.in.alive, g.id.Predecessor(), excused)
			g.checkPulse(&g.out.alive, g.id.Successor(), excused)
		}
	}
}

func (g *Group) checkPulse(p *pulse, rank int, excused int64) {
	waiting := p.waiting.Load()
	if waiting == 0 {
		return
	}
	silence := time.Duration(g.now() - max(waiting, p.heard.Load(), excused))
	if silence > g.cfg.Timeout {
		g.failPeer(rank, fmt.Errorf("%w for %v", ErrTimeout, silence.Round(time.Millisecond)))
	}
}

// lastWords says farewell, and again until Close: a neighbour may have missed
// it, or only now ask for a sign of life.
func (g *Group) lastWords(tick <-chan time.Time) {
	for {
		g.farewell()
		select {
		case <-g.closing:
			return
		case <-tick:
		case <-g.in.ackDue:
		}
	}
}

// farewell tells both neighbours that this rank leaves, or why the round failed.
func (g *Group) farewell() {
	if g.orderly {
		g.send(Backward, header{kind: kindBye, seq: g.in.consumed.Load()}, nil)
		g.send(Forward, header{kind: kindBye, seq: g.out.sent.Load()}, nil)
		return
	}
	payload := g.notice.encode()
	g.send(Backward, header{kind: kindAbort}, payload)
	g.send(Forward, header{kind: kindAbort}, payload)
}
