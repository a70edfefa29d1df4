// Package allreduce sums float32 vectors over the replicas of one round: ring
// all-reduce, all-gather and broadcast in small segments over any Transport.
// It knows neither models nor clusters.
//
// # Shape
//
// P ranks form a ring. A Transport is one rank's two links in one round: data
// to the successor and from the predecessor, control frames the other way. A
// Group runs collectives over it, one at a time, called in the same order on
// all ranks. Each rank injects what it has, and forwards what it receives
// (reduced with its own part on the way) until the segment has been
// everywhere (Patarasuk & Yuan, "Bandwidth Optimal All-reduce Algorithms for
// Clusters of Workstations", 2009).
//
// # Cost
//
// P ranks, n bytes of vector in wire format, s bytes a segment:
//
//	collective    steps   bytes sent by each rank   memory beside the vector
//	AllReduceSum  2(P−1)  2·n·(P−1)/P               inbox, and what passes: ≤ 2·Window segments
//	AllReduceMax  2(P−1)  2·n·(P−1)/P               same
//	AllGather     P−1     n − the successor's part  same
//	Broadcast     P−1     n (the last rank: 0)      same, pipelined: n/s + P − 2 segment times
//	Barrier       P−1     4·(P−1)                   none
//
// What only passes a rank, a partial sum or a part of the result, goes on in the buffer it
// came in: one pass adds, rounds and packs there, and the vector is read once for its sum
// and written once for the result. Where Window such segments wait for the successor, the
// others go by the vector. The result is stored past the caches if it is large.
//
// Each segment also carries HeaderLen bytes of header; one frame's worth of credit goes
// back for every quarter of a window. World size 1 costs
// nothing: no goroutine, no copy. The wire formats are package codec's.
//
// # Guarantees
//
// All ranks end with bit-identical vectors in every wire format: each chunk is
// summed along one path, in float32, and distributed from its owner, which
// adopts the rounded value it sends. Which path depends on the rank, so the
// same terms on other ranks give other low bits, unless they were first
// rounded to a common grid, see below.
//
// Transports may lose, repeat, corrupt and cut. A segment carries a sequence
// number and a CRC32C: repetition is dropped, loss is an error, and frames of
// another round or job are dropped too. Nothing is retransmitted: an error
// ends the Group and the round, and says which rank is suspected. A rank that
// fails tells the others around the ring, so that all name the same suspect.
//
// Flow control is by credits: at most Config.Window segments are in flight on
// a link, and the receiver grants more as it consumes, so that no transport's
// own limits are leaned on. A peer may run ahead by as much as fits in the
// window. Both links carry a heartbeat: a peer may take any time to reach a
// collective (it is computing), but a silent one is reported after
// Config.Timeout.
//
// # Lanes
//
// How segments go over a link is chosen link by link. Between processes they travel in
// frames, over NATS or over a connection of the link's own (package direct). Between two ranks of one process (a Transport that is a Lender) they stay where
// they are: the sender says that a segment is there, the receiver reads it out of the
// sender's vector, and the sender's collective ends when it has been read. Beats, probes
// and bad news go over the Transport all the same. No gradient is copied but by the sum
// itself, and nothing is rounded on the way: with bf16 only the owner of a chunk rounds.
//
// # Sums that do not depend on their order
//
// Floating-point addition rounds, so (a+b)+c and a+(b+c) differ, and with them
// the sums of one replica and of four. The remedy is to round before adding:
// all ranks agree on the largest magnitude of a tensor over all terms (MaxAbs,
// then AllReduceMax, which no order can change); Grid gives the spacing of a
// grid for so many terms of that magnitude; RoundInto puts each term on it. Now
// every partial sum is a multiple of the spacing and small enough for float32
// to hold exactly. Nothing is rounded while summing, and any order, bracketing
// and number of ranks gives the same bits. What it costs in accuracy is bounded
// at Grid. In memory it costs a vector for each local term, in traffic one
// small all-reduce.
//
// It holds for fp32 on the wire. With bf16 partial sums are rounded as they
// travel, so the low bits depend on the number of ranks; the ranks still agree.
package allreduce
