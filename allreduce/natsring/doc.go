// Package natsring is an allreduce.Transport over NATS: one subject a link, the
// frame's payload straight from the vector, its header in the message's reply
// field.
//
// # Who serves whom
//
// A link lives on a server. By default ("pull") every replica embeds one: it
// publishes to its own server over an in-process connection, and its ring
// successor subscribes there over TCP. Each network link then carries its ring
// share once, one hop, and nothing else. A peer without a server of its own
// (Peer.URL empty) is served by the hub that all share: right where all
// replicas live in one process with the server, slow over a network (a hub
// carries 2(P−1)·n each way).
//
// # Strangers
//
// With Options.Neighbours a Node's server speaks TLS, and only the successor in the latest
// round gets in; each end knows the other by its id. So a successor that is earlier than
// its predecessor's round is refused, and tries again until it is let in.
//
// A PlainRing is in the clear. Its successor answers the server's challenge, or that of the
// lane direct, with a proof that it knows the key of the latest round; and frames carry
// tags that follow from that key (allreduce.Keyed). A Node's server is of one kind at a
// time, and is started again, at its port, where a round is of the other kind.
//
// # Connections
//
// A Node holds a replica's connections and keeps them over rounds. Publishing
// data, publishing control frames and subscribing each have a connection of
// their own on every server: a publisher that waits for the server must not
// keep credits, or what arrives, waiting. They never reconnect; the loss of
// one is reported at once, naming the peer whose server it was.
//
// # Cost
//
// A segment is copied by the sender into its frame, while its checksum is computed; by the
// server in and out; by the kernel in and out; and added by the receiver from the buffer
// that it was read into. nats.go opens, keeps and subscribes all connections, but segments
// go past it (see tap): it would copy each twice more, and allocate. What is allocated a
// segment is the server's, about four small objects. Latency is two process hops (pull) or
// one server hop (hub).
package natsring
