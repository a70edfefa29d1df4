// Package identity says who belongs to a job: the keys of its coordinator, the tokens
// that others join with, and the TLS configurations in which both are checked.
//
// A coordinator has one secret, its root, made at its first start and kept in its
// folder. All else follows from it by HKDF: the key of a certificate authority, and a
// secret for each role. So coordinators that stand by for each other share one file.
//
//	mochi-join-<fingerprint>-<secret>
//
// is a token: the role, the SHA-256 of the authority's public key, and the secret of the
// role. Who joins
//
//  1. opens a TLS 1.3 connection and checks the server's certificate against the
//     fingerprint, before it says anything;
//  2. shows a certificate of its own with a key that it has made when it started, in
//     which stands a keyed hash of that key with the secret. The secret does not travel.
//
// Somebody without a token, or with a wrong one, is refused in the handshake and learns
// nothing but the certificate of the server.
//
// The end of a replica's id is a hash of its key, so an id is proven by the handshake:
// nobody can speak in the name of another, neighbours of a ring know each other by the
// ids that the coordinator tells them, and a coordinator that restarts has nothing to
// remember.
//
// The clock is not asked: tokens are made invalid by new ones (Root.Rotate), not by time.
//
// Cost: a handshake takes two signatures and two checks of Ed25519 and one exchange of
// keys, about 0.3 ms of processor time on each side.
//
// Sources: RFC 8446 (TLS 1.3), RFC 5869 (HKDF), RFC 8032 (Ed25519); the form of the token
// follows k3s.
package identity
