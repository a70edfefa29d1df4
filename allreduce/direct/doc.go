// Package direct carries the frames of one link of a ring over a TCP connection of its
// own, from the sender's vector to a buffer of the receiver's: the lane "direct". It knows
// neither rounds nor NATS: two neighbours agree on an address and a secret somewhere else
// (package natsring), the one listens, the other dials.
//
// # Strangers
//
// Whoever connects has HelloTimeout to show a secret that is expected. A secret is good
// for one connection. The listener answers with a proof that it knows the secret as well.
// What comes from a stranger is read up to the length of a hello, and only so many
// strangers are listened to at a time. Where that is not enough, Wrap puts TLS, or what
// else there is, around each connection before a byte is read.
//
// # Frames
//
// A frame is the payload's length (4 bytes, little-endian), its header (allreduce's) and
// the payload. A length beyond MaxPayload means that something else is being sent, and ends
// the link. What is damaged otherwise, the checksum or the tag in the header shows.
//
// # Cost
//
// One writev and one read a frame, no copy at the sender, one at the receiver's end (out of
// the buffer, which is the addition itself where there is one). Nothing is allocated while
// frames come back to the pool.
package direct
