// Package replica is the training loop of one replica: round → step → vote →
// commit.
//
// A replica decides nothing about membership: it runs the steps of the round it
// was dealt, holds the sums of the gradients, votes READY, and changes its state
// only when a COMMIT arrives. So a step either happened on every replica or on
// none, and whatever interrupts it can be tried again from the same state.
//
// Everything a step computes is a function of (parameters, sample indices,
// seed), and gradients are summed exactly (package reduction), so with fp32 on
// the wire the state after step t has the same bits for any number of replicas.
//
// # Parts
//
// A Replica talks to the coordinator (through a Link). Once it knows the job it
// has a session, of parts that own what they need:
//
//	encoders    the model on this replica's engine: digests, checkpoints
//	negatives   the queue, or the shards of it that are held here
//	input       which samples a step has, and their images, on time
//	keys        those of the step in hand
//	reduction   the sums of gradients and BatchNorm statistics over all groups
//	position    how many steps and samples were committed
//	vote        the step that waits for its commit
//
// A round that it takes part in is a party: the membership, the ring, and the
// loss against the queue as the members hold it (package criterion).
//
// # A message on its way
//
// One goroutine receives messages into the inbox, where one that ends the round
// in hand also cancels it; one, that of Run, owns everything else; a third sends
// heartbeats. What is done with a message depends on what the replica is doing:
// states.go has the table. A Round goes from handle (replica.go) to round and
// takePart (round.go), which prepares the state and runs step (step.go) until the
// coordinator ends the round; a COMMIT goes to awaitCommit and finish (step.go).
//
// # A queue that is spread
//
// With --queue-copies R each member holds some shards of the queue
// (Round.Holders). What it lacks is sent by a holder around the ring before the
// round's first step (Round.Transfers); what it gives up it keeps until that step
// is committed: before, it may be the last copy. A joiner gets the rest of the
// state from a member that broadcasts it around the ring.
//
// With all copies as with R, copies are compared at every commit, after each
// replica has read part of its queue again. A shard that no longer matches its
// own checksums is the wrong one of two, and is not sent to anybody.
//
// # Checkpoints
//
// A checkpoint is complete whatever the copies are: right after the commit the
// owners send their shards to rank 0, which stores it. If a member dies meanwhile
// rank 0 says so (Failed.Unsaved), and the next commit, or at the end of the job
// a round without a step (Round.Save), tries again. The state is encoded at once
// and travels while training goes on.
package replica
