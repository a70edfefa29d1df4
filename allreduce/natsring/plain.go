package natsring

import (
	"context"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync/atomic"

	"github.com/nats-io/nats.go"

	"mochi/allreduce"
	"mochi/allreduce/direct"
	"mochi/allreduce/natsserver"
)

// A plain ring goes over the network in the clear, for networks where nobody listens.
// Whoever connects shows that it knows the round's key, without telling it, and each frame
// is authenticated by it (allreduce.Keyed).

// PlainRing is Ring in the clear, with a key that the members of the round alone know, of
// allreduce.KeyLen bytes: it is used for one ring, and refused for a second one.
func (n *Node) PlainRing(ctx context.Context, round int64, rank int, peers []Peer, lane Lane, key []byte) (allreduce.Transport, error) {
	if len(key) != allreduce.KeyLen {
		return nil, fmt.Errorf("ring of round %d: its key has %d bytes, want %d: the coordinator should have sent one", round, len(key), allreduce.KeyLen)
	}
	return n.ring(ctx, round, rank, peers, lane, key)
}

// secret is what a member knows of a plain round. It proves the membership of whoever
// connects; frames have keys of their own.
type secret struct {
	key  []byte
	self string // id
	next string // the successor's
}

// newSecret is that of a round's key.
func newSecret(key []byte, job string, round int64, self, next string) (*secret, error) {
	k, err := hkdf.Key(sha256.New, key, nil, fmt.Sprintf("mochi ring members\x00%s\x00%d", job, round), sha256.Size)
	return &secret{k, self, next}, err
}

// proof is one of membership: who says it, on the link from one member to its successor,
// and what it was asked.
func (s *secret) proof(who, from, to string, asked ...[]byte) []byte {
	mac := hmac.New(sha256.New, s.key)
	fmt.Fprintf(mac, "%s\x00%s\x00%s", who, from, to)
	for _, a := range asked {
		fmt.Fprintf(mac, "\x00%d\x00", len(a))
		mac.Write(a)
	}
	return mac.Sum(nil)
}

// errNoMember: who connects does not know the key of the latest round.
var errNoMember = errors.New("not a member of this round")

// admitPlain lets in the successor in the latest round.
func (n *Node) admitPlain(c natsserver.Client) (natsserver.Rights, error) {
	s := n.secret.Load()
	answer, err := base64.RawURLEncoding.DecodeString(c.Answer)
	if err != nil || s == nil || c.Challenge == "" || !hmac.Equal(answer, s.proof("successor", s.self, s.next, []byte(c.Challenge))) {
		return natsserver.Rights{}, errNoMember
	}
	return n.rights(), nil
}

// answering is how a client shows the server of the member from that it is next to it.
func answering(latest *atomic.Pointer[secret], from string) nats.Option {
	return nats.Nkey("successor", func(nonce []byte) ([]byte, error) {
		s := latest.Load()
		if s == nil {
			return nil, errNoMember
		}
		return s.proof("successor", from, s.self, nonce), nil
	})
}

// enters prepares this Node for a round, plain where it has a key: its server, which stays
// as it is from round to round, is started again where it was of the other kind.
func (n *Node) enters(id allreduce.Identity, peers []Peer, key []byte) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.successor.Store(&peers[id.Successor()].ID)
	if key == nil {
		n.secret.Store(nil)
	} else {
		if n.used[[allreduce.KeyLen]byte(key)] {
			return fmt.Errorf("ring of round %d: a key is used for one ring, and this one was used before", id.Round)
		}
		s, err := newSecret(key, id.Job, id.Round, peers[id.Rank].ID, peers[id.Successor()].ID)
		if err != nil {
			return err
		}
		n.used[[allreduce.KeyLen]byte(key)] = true
		n.secret.Store(s)
	}
	plain := key != nil
	if n.own == nil || n.plain == plain || n.closed {
		return nil
	}
	for url, e := range n.endpoints {
		e.close()
		delete(n.endpoints, url)
	}
	n.own.Shutdown()
	host, _, err := net.SplitHostPort(n.o.Listen)
	if err != nil {
		return err
	}
	own, err := startServer(net.JoinHostPort(host, strconv.Itoa(n.port)), func(o *natsserver.Options) { n.guard(o, plain) })
	if err != nil {
		return err
	}
	n.own, n.plain = own, plain
	return nil
}

const nonceLen = 32

// taken is the handshake of who takes a connection: it asks first, so that a stranger
// learns nothing.
func (s *secret) taken(c net.Conn) (net.Conn, error) {
	asked := make([]byte, nonceLen)
	rand.Read(asked) // never fails
	if _, err := c.Write(asked); err != nil {
		return nil, err
	}
	var said [nonceLen + sha256.Size]byte
	if _, err := io.ReadFull(c, said[:]); err != nil {
		return nil, err
	}
	asks := said[:nonceLen]
	if !hmac.Equal(said[nonceLen:], s.proof("successor", s.self, s.next, asked, asks)) {
		return nil, errNoMember
	}
	_, err := c.Write(s.proof("predecessor", s.self, s.next, asked, asks))
	return c, err
}

// dialled is the other end's, of the connection to the member from.
func (s *secret) dialled(from string) direct.Wrap {
	return func(c net.Conn) (net.Conn, error) {
		var asked [nonceLen]byte
		if _, err := io.ReadFull(c, asked[:]); err != nil {
			return nil, err
		}
		asks := make([]byte, nonceLen)
		rand.Read(asks)
		if _, err := c.Write(append(asks, s.proof("successor", from, s.self, asked[:], asks)...)); err != nil {
			return nil, err
		}
		var said [sha256.Size]byte
		if _, err := io.ReadFull(c, said[:]); err != nil {
			return nil, err
		}
		if !hmac.Equal(said[:], s.proof("predecessor", from, s.self, asked[:], asks)) {
			return nil, errors.New("it is no member of this round")
		}
		return c, nil
	}
}
