package natsring

import (
	"sync"

	"mochi/allreduce"
)

// Process is what the Nodes of one process know of each other. Neighbours that both
// have it lend each other their vectors (allreduce.Lender): NATS then carries only the
// word that a segment is there. The zero value is ready.
type Process struct {
	mu    sync.Mutex
	nodes map[member]int
	loans map[link]*sharedLoans
}

// member is a replica of a job.
type member struct{ job, id string }

// link is one link in one round, named by the rank that lends.
type link struct {
	job   string
	round int64
	rank  int
}

// sharedLoans are the loans of a link and how many ends use them.
type sharedLoans struct {
	allreduce.Loans
	users int
}

func (p *Process) enter(m member) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.nodes == nil {
		p.nodes, p.loans = map[member]int{}, map[link]*sharedLoans{}
	}
	p.nodes[m]++
}

func (p *Process) leave(m member) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.nodes[m]--; p.nodes[m] == 0 {
		delete(p.nodes, m)
	}
}

// open gives one end of a link the loans that both share, nil when the other end, peer,
// is not in this process.
func (p *Process) open(l link, peer member) *allreduce.Loans {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.nodes[peer] == 0 {
		return nil
	}
	s := p.loans[l]
	if s == nil {
		s = &sharedLoans{}
		p.loans[l] = s
	}
	s.users++
	return &s.Loans
}

// close ends what open began.
func (p *Process) close(l link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.loans[l]; s != nil {
		if s.users--; s.users == 0 {
			delete(p.loans, l)
		}
	}
}
