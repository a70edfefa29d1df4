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
// Each frame is copied by the client into its write buffer, by the server in
// and out, and by the receiving client once more; memory bandwidth is the
// limit. Latency is two process hops (pull) or one server hop (hub).
package natsring
