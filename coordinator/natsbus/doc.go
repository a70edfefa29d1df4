// Package natsbus carries the protocol over NATS: an embedded server, the
// coordinator's end, the replica's end, and checkpoints in pieces.
//
// What travels where (job "demo", replica "b"):
//
//	mochi.demo.coordinator.b messages of b, JSON (packed where it is long)
//	mochi.demo.replica.b     all the coordinator says to b, JSON, in order
//	mochi.demo.status        request → Status
//	mochi.demo.checkpoint.b  request → a piece of a checkpoint, binary
//
// Core NATS delivers at most once: what is in flight when a connection breaks
// is gone. The server tells the coordinator of every client that disconnects
// (a system event, within a millisecond of the socket closing), and a replica
// that comes back is made to introduce itself again, so nothing here retries
// a message. Checkpoints are the exception: each piece is acknowledged and
// sent again until it is.
//
// Where several coordinators stand by for each other only the one that leads
// listens; see dialer for how it is found, and found anew.
//
// Cost: a vote, its append to the log and the commit take about 40 µs in one
// process, 120 µs over loopback TCP; a checkpoint moves at the speed of
// stop-and-wait with pieces of up to 512 KiB, on a connection of their own.
//
// Sources: NATS client protocol and server system events
// (docs.nats.io/running-a-nats-service/configuration/sys_accounts).
package natsbus
