// Package clustertest runs whole clusters — the coordinator that coordinates
// (coordinator.Server) and the replicas that train (replica.Replica), not models
// of them — in one process on virtual time, and looks for histories in which a
// promise of ARCHITECTURE.md is broken. It serves tests alone.
//
// A history is a function that starts processes, does things to them and says
// what must come of it:
//
//	clustertest.Run(t, clustertest.Config{Steps: 30}, func(w *clustertest.World) {
//		w.StartCoordinator(nil)
//		w.Start("a", clustertest.Engine{})
//		w.Start("b", clustertest.Engine{})
//		w.Reaches(10, time.Minute) // step 10 is committed within a minute
//		w.Pause("b", 12*time.Second)
//		w.Commits(5, 30*time.Second) // five more steps are
//		w.Never("rolled back")
//		w.Ends(time.Minute) // all steps are; every process ends without an error
//	})
//
// Faults: Crash and Start again, Pause, BreakConnection, Cut, Partition, Slow and
// Stall of one direction between two hosts, Uplink, LateEnds; StallDisk,
// FillDisk, LoseTail, EmptyFolder, CopyFolder and RestoreFolder; Depose; Tune of an engine that is slow, hangs, fails
// or computes wrong bits; and with Config.Plan any of these at a Point, the n-th
// time that a host does something others can see: so a coordinator can be killed
// between any two actions of a plan.
//
// With Group the coordinator is one of several with a replicated log: then "the
// coordinator" is the one that leads (Leader, Members). With StartCopy a second one runs
// on a copy of the folder, and Move says which of them a replica's host knows.
//
// What holds always is checked without being asked for: the log is that of an
// unbroken run with one replica, and so are the states that replicas report and
// the checkpoints that are stored, to the bit; nothing is published before it is
// in the log; each step is recorded once, in order; no round has two memberships;
// a state that replicas hold is not given up; nobody panics, the job does not end as failed and no process with an error
// unless the history expects it (ExpectEnd, ExpectFailure).
//
// # What is real and what is not
//
// Real: coordinator.Server with its core, replica.Replica with its queue, loss,
// reduction and checkpoints, allreduce.Group. Simulated: the message server and
// its clients (bus.go: order by connection, what is lost when one breaks, what a
// client keeps, ends that are noticed late), the ring's links, the disk, the replicated
// log of a group (group.go: from outside, no message of it travels), and the
// engine (engine.go), whose state is a few floats that depend on every bit of
// all that was computed before. A process that is suspended stands still where it
// sends, receives, computes or writes.
//
// # Time and chance
//
// Time is virtual (testing/synctest): a pause of an hour costs nothing but its
// heartbeats. Every delay is drawn from the seed, the name of what is delayed and
// how often it was before, so that no two things happen at one instant, and one
// thing more or less leaves the other delays as they were. On one processor
// (runtime.GOMAXPROCS(1), which the tests set) a seed gives the same history every
// time; a test compares the hashes of two runs.
//
// Cost: about 1 ms of real time a step of three replicas.
package clustertest
