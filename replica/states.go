package replica

import "mochi/coordinator/protocol"

// state is what a replica is doing when a message of the coordinator comes, as
// far as it matters to what is done with the message.
//
// To leave is no state of its own: a replica that has said so goes on as it is
// until the coordinator lets it go, only it does not wait for that for ever
// (farewell).
type state int

const (
	// joining: it has said Hello and was not welcomed yet.
	joining state = iota
	// waiting: it is welcomed and has nothing to do: before its first round,
	// between rounds, standing by.
	waiting
	// undecided is waiting with a vote whose round has ended, so that its step may
	// have been committed or not; a new round voids it.
	undecided
	// busy: it takes part in a round and reads no messages: it prepares (state,
	// ring, shards), computes a step that it has not voted for yet, applies a
	// commit, or saves a checkpoint.
	busy
	// voted: it has computed a step and waits to hear whether that is committed.
	voted

	states
)

// kind is what a message says: which of its fields is set.
type kind int

const (
	nothing kind = iota // none: the inbox was poked so that its reader looks around
	welcome
	refused
	round
	commit
	stop
	again
	snapshot
	recall

	kinds
)

func kindOf(m protocol.Message) kind {
	switch {
	case m.Welcome != nil:
		return welcome
	case m.Refused != nil:
		return refused
	case m.Round != nil:
		return round
	case m.Commit != nil:
		return commit
	case m.Stop != nil:
		return stop
	case m.Again != nil:
		return again
	case m.Snapshot != nil:
		return snapshot
	case m.Recall != nil:
		return recall
	}
	return nothing
}

// action is what is done with a message.
type action int

const (
	missing action = iota // no entry of the table

	drop      // it comes too late, too early, or says nothing
	keep      // it stays in the inbox, in order, until the replica reads again
	interrupt // it stays too, and ends what the replica does for its round
	join      // build the session for the job
	adopt     // the coordinator was started again: note its new instance
	introduce // the coordinator does not know this replica: say Hello
	takePart  // begin the round
	apply     // make the step final that was voted for; another step's is dropped
	recount   // send commits that it keeps
	upload    // send the state as a checkpoint, if it is that of the step asked for
	fail      // Run ends with ErrRefused
	end       // Run ends: the job is over, or has failed
)

// table says what is done with every message in every state. The states without
// keep and interrupt are those in which the inbox is read. A coordinator that does
// not know this replica (again) waits for its Hello, and nobody for the step in
// hand: that might never end, when it was started again while a member hangs.
var table = [states][kinds]action{
	joining: {
		nothing: drop, welcome: join, refused: fail, round: drop,
		commit: drop, stop: end, again: introduce, snapshot: drop, recall: drop,
	},
	waiting: {
		nothing: drop, welcome: adopt, refused: fail, round: takePart,
		commit: drop, stop: end, again: introduce, snapshot: upload, recall: recount,
	},
	undecided: {
		nothing: drop, welcome: adopt, refused: fail, round: takePart,
		commit: apply, stop: end, again: introduce, snapshot: upload, recall: recount,
	},
	busy: {
		nothing: keep, welcome: keep, refused: interrupt, round: interrupt,
		commit: keep, stop: interrupt, again: interrupt, snapshot: interrupt, recall: interrupt,
	},
	voted: {
		nothing: drop, welcome: adopt, refused: interrupt, round: interrupt,
		commit: apply, stop: interrupt, again: introduce, snapshot: interrupt, recall: recount,
	},
}

// on is what is done with a message in this state.
func (s state) on(m protocol.Message) action { return table[s][kindOf(m)] }

// interrupts says whether a message ends what a busy replica does for its round.
func interrupts(m protocol.Message) bool { return busy.on(m) == interrupt }

// state is that of a replica outside a round.
func (r *Replica) state() state {
	switch {
	case r.session == nil:
		return joining
	case r.session.vote != nil:
		return undecided
	}
	return waiting
}
