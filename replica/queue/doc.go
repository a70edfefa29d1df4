// Package queue is the queue of negatives (He et al. 2020, §3.2): the keys of
// the last K samples and their classes, oldest overwritten first.
//
// The contents depend on nothing but the history of commits: keys enter in
// global-batch order, with wrap-around, on COMMIT only, so K need not be a
// multiple of the batch and every replica holds the same bits.
//
// # Shards and copies
//
// Slot i belongs to virtual shard i mod V, as its row i div V. A replica holds
// all shards (--queue-copies all) or, with R copies of each over P replicas,
// about V·R/P of them. Which ones is not decided here: the coordinator deals
// them out, and what a member gives up it keeps until the next commit, because
// it may be the last copy. Hold follows such a decision, Export and Import move
// a shard, as stored. Nothing else has to be remembered: a shard has a version
// (keys written to it so far) and a digest, by which copies are compared.
//
// # Digests and audits
//
// A shard's digest is a sum of one 64-bit hash a slot, so that Enqueue updates
// it in O(B·d) whatever K is. The hashes are also each slot's checksum: Audit
// reads the keys again, some shards at a time, and finds those that no longer
// have theirs. Of two copies that differ, the one that fails its own audit is
// the wrong one, and it alone is replaced. A step computed between the fault
// and the next audit may have seen it. All this guards against faults, not
// against an adversary.
//
// # Another K, V or storage
//
// A Saved queue, as a checkpoint has it, holds the keys in the order of slots
// as float32, whatever V, R and Storage are, so a run may go on with others. A
// digest is of values: it does not depend on them either. For another K see
// Saved.Resized: the newest keys that fit, the other slots random as at a
// start. With BF16 keys are rounded as they enter, on every member alike.
//
// Memory: 4·d bytes a slot held, 2·d stored as bfloat16, and 12 for label and
// hash.
package queue
