package allreduce

import "sync"

// Lender is a Transport with neighbours in the same process. Segments for them do not
// travel: the neighbour reads them where they lie, in the sender's vector (the lane
// "reference"). Everything else, from probes to the word that a rank has failed, goes
// over the Transport as always.
//
// Both ends of a link must have the same Loans, or none.
type Lender interface {
	Transport
	// Lends are the loans to the successor, nil when its segments are sent.
	Lends() *Loans
	// Borrows are the loans from the predecessor, nil likewise.
	Borrows() *Loans
}

// Loans are the segments of one link, in one round, that lie in the sender's memory.
// A segment may be read from the moment it is lent until the receiver grants credit for
// it, or the sender's collective fails, whichever is first. The sender's collective does
// not end before that, so the vector is its caller's again afterwards, also after an
// error. The zero value is ready.
type Loans struct {
	mu       sync.Mutex
	returned sync.Cond // reading became false
	lent     map[uint64][]byte
	reading  bool // the receiver is at one: it reads one at a time
	over     bool // recalled for good

	arrived func(header)     // of the receiving Group, nil until it is there and when it is gone
	granted func(seq uint64) // of the lending one
}

// lend makes the segment with header h readable and tells the receiver. It reports false
// when the loans were recalled. A receiver that is gone hears nothing, as with a
// connection that is cut.
func (l *Loans) lend(h header, segment []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return false
	}
	if l.lent == nil {
		l.lent = map[uint64][]byte{}
	}
	l.lent[h.seq] = segment
	if l.arrived != nil {
		l.arrived(h)
	}
	return true
}

// grant tells the lender how many segments the receiver is done with.
func (l *Loans) grant(seq uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.granted != nil {
		l.granted(seq)
	}
}

// borrow gives a segment to read until giveBack, false when there is none (any more).
func (l *Loans) borrow(seq uint64) ([]byte, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	segment, ok := l.lent[seq]
	l.reading = ok
	return segment, ok
}

// giveBack ends what borrow began.
func (l *Loans) giveBack(seq uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.lent, seq)
	l.reading = false
	if l.returned.L != nil {
		l.returned.Broadcast()
	}
}

// recall takes back all segments, for good, and waits for the receiver to have stopped
// reading, which takes no longer than reading one.
func (l *Loans) recall() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over, l.lent = true, nil
	l.returned.L = &l.mu
	for l.reading {
		l.returned.Wait()
	}
}

// borrower sets who hears of what is lent; lender, of what is granted. nil: nobody.
func (l *Loans) borrower(arrived func(header)) {
	l.mu.Lock()
	l.arrived = arrived
	l.mu.Unlock()
}

func (l *Loans) lender(granted func(seq uint64)) {
	l.mu.Lock()
	l.granted = granted
	l.mu.Unlock()
}
