package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"sync"
	"time"
)

// Authority is a coordinator's side: it shows the certificate that tokens are of, and
// says who may do what. It is safe for concurrent use.
type Authority struct {
	key   *Key // of this process
	print [printBytes]byte
	cert  tls.Certificate // of the server
	roots *x509.CertPool  // of the other coordinators' certificates, nil: they are of the same authority
	inner *Authority      // of an operator's certificate: what coordinators show each other on their own port; else nil
	load  func() (Root, error)

	mu     sync.Mutex
	root   Root
	loaded time.Time
	known  map[string]Role // keys that were let in, by hash: a new token does not send them away
}

// rereadEvery is how often the root is looked at again: somebody may have made new
// tokens.
const rereadEvery = 2 * time.Second

// mostKnown bounds the keys that are remembered.
const mostKnown = 1 << 16

// NewAuthority makes that of a root. load, if not nil, reads the root again: it has other
// tokens when they were changed. own, if not nil, is a certificate to show instead of one
// that the authority signs: tokens are then of that.
func NewAuthority(root Root, load func() (Root, error), own *Certificate) (*Authority, error) {
	if _, err := root.seed(); err != nil {
		return nil, err
	}
	a := &Authority{key: NewKey(), load: load, root: root, loaded: time.Now(), known: map[string]Role{}}
	if own != nil {
		leaf, err := x509.ParseCertificate(own.Cert.Certificate[0])
		if err != nil {
			return nil, fmt.Errorf("the coordinator's certificate: %w", err)
		}
		a.cert, a.print, a.roots = own.Cert, fingerprint(leaf), own.Roots
		a.inner, err = NewAuthority(root, load, nil)
		return a, err
	}
	private := ed25519.NewKeyFromSeed(root.derive("authority", ed25519.SeedSize))
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mochi"},
		NotBefore: time.Unix(0, 0), NotAfter: never,
		KeyUsage: x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, private.Public(), private)
	if err != nil {
		return nil, fmt.Errorf("make the coordinator's authority: %w", err)
	}
	if ca, err = x509.ParseCertificate(caDER); err != nil {
		return nil, fmt.Errorf("make the coordinator's authority: %w", err)
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: string(Coordinator)},
		NotBefore: time.Unix(0, 0), NotAfter: never,
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, a.key.private.Public(), private)
	if err != nil {
		return nil, fmt.Errorf("make the coordinator's certificate: %w", err)
	}
	a.cert = tls.Certificate{Certificate: [][]byte{leafDER, caDER}, PrivateKey: a.key.private}
	a.print = fingerprint(ca)
	return a, nil
}

// Token is the one to hand out for a role.
func (a *Authority) Token(r Role) Token { return a.now().token(r, a.print) }

// now is the root as it is now. One that cannot be read changes nothing.
func (a *Authority) now() Root {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.load != nil && time.Since(a.loaded) > rereadEvery {
		a.loaded = time.Now()
		if r, err := a.load(); err == nil && r.Seed == a.root.Seed {
			a.root = r
		}
	}
	return a.root
}

// errRefused is what a handshake fails with; the other side hears only that its
// certificate was not taken.
var errRefused = errors.New("no token, or a wrong one")

// Role is what the client of a connection has shown to be.
func (a *Authority) Role(state *tls.ConnectionState) (Role, error) {
	if state == nil || len(state.PeerCertificates) == 0 {
		return "", errRefused
	}
	c := state.PeerCertificates[0]
	role := Role(c.Subject.CommonName)
	switch role {
	case Join, Read, Coordinator:
	default:
		return "", errRefused
	}
	root := a.now()
	want := proof(role, root.token(role, a.print).secret, c.RawSubjectPublicKeyInfo)
	h := string(role) + hash(c.RawSubjectPublicKeyInfo)
	a.mu.Lock()
	defer a.mu.Unlock()
	if subtle.ConstantTimeCompare([]byte(want), []byte(c.Subject.SerialNumber)) == 1 {
		if len(a.known) < mostKnown {
			a.known[h] = role
		}
		return role, nil
	}
	if role != Coordinator && a.known[h] == role { // it was let in with the token before
		return role, nil
	}
	return "", errRefused
}

// Server is the configuration in which others connect: whoever has none of the roles
// given is refused in the handshake.
func (a *Authority) Server(roles ...Role) *tls.Config {
	c := common()
	c.Certificates = []tls.Certificate{a.cert}
	c.ClientAuth = tls.RequireAnyClientCert
	c.VerifyConnection = func(state tls.ConnectionState) error {
		role, err := a.Role(&state)
		if err != nil {
			return err
		}
		for _, r := range roles {
			if r == role {
				return nil
			}
		}
		return errRefused
	}
	return c
}

// Between are the two ends of connections between coordinators on a port of their own:
// both show that they have the same root.
func (a *Authority) Between() (server, client *tls.Config, err error) {
	if a.inner != nil {
		return a.inner.Between()
	}
	client, err = a.key.Client(a.now().token(Coordinator, a.print))
	return a.Server(Coordinator), client, err
}

// CommitKey is what coordinators with this root seal commits with. New tokens change nothing
// in it.
func (a *Authority) CommitKey() []byte { return a.now().derive("commits", 32) }

// ID is an id that this coordinator's key proves.
func (a *Authority) ID(name string) string { return a.key.ID(name) }

// Peer is how this coordinator comes to others of its group.
type Peer struct{ a *Authority }

// Peer of the authority.
func (a *Authority) Peer() Peer { return Peer{a} }

// Client is how to connect to another coordinator.
func (p Peer) Client(address string) (*tls.Config, error) {
	t := p.a.now().token(Coordinator, p.a.print)
	if p.a.roots == nil {
		return p.a.key.Client(t)
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	return p.a.key.ClientOf(t, p.a.roots, host)
}

// Inbox is the subject below which this coordinator hears answers.
func (p Peer) Inbox() string { return inbox(p.a.key.public) }
