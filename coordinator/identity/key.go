package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"
)

// Key is what a process proves itself by. It is made when the process starts, and ends
// with it.
type Key struct {
	private ed25519.PrivateKey
	public  []byte // SPKI, DER
}

// NewKey draws one.
func NewKey() *Key {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err) // it never fails
	}
	return keyOf(private, public)
}

func keyOf(private ed25519.PrivateKey, public ed25519.PublicKey) *Key {
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		panic(err) // only of kinds of keys that it does not know
	}
	return &Key{private: private, public: spki}
}

// hashLetters is how much of a key's hash is in an id: 80 bits.
const hashLetters = 16

// mostName is how much of a name is in an id.
const mostName = 40

// ID is an id that this key proves, and that says whose it is.
func (k *Key) ID(name string) string {
	word := Word(name)
	return word[:min(len(word), mostName)] + "-" + hash(k.public)
}

// Word is a name as it may stand in an id: letters and digits of ASCII, - and _.
func Word(name string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_':
			return r
		}
		return '-'
	}, name)
}

func hash(public []byte) string {
	sum := sha256.Sum256(public)
	return letters.EncodeToString(sum[:])[:hashLetters]
}

// Proves says whether a connection's certificate proves an id.
func Proves(state *tls.ConnectionState, id string) bool {
	if state == nil || len(state.PeerCertificates) == 0 {
		return false
	}
	return strings.HasSuffix(id, "-"+hash(state.PeerCertificates[0].RawSubjectPublicKeyInfo))
}

// certificate is a certificate that the key signs itself.
func (k *Key) certificate(subject pkix.Name) (tls.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: subject,
		NotBefore: time.Unix(0, 0), NotAfter: never,
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.private.Public(), k.private)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make a certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k.private}, nil
}

// never is when certificates expire (RFC 5280, 4.1.2.5).
var never = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

// common is what all configurations here have.
func common() *tls.Config {
	// Small records at first would help a page that is shown while it loads.
	return &tls.Config{MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true, DynamicRecordSizingDisabled: true}
}

// ServerError says that who answers is not the coordinator that the token is of.
type ServerError struct{ Why string }

// Error implements error.
func (e *ServerError) Error() string {
	return "whoever answers there is not the coordinator that the token is of (" + e.Why + "): nothing was told; take the token of this coordinator (mochi token show beside it); coordinators of a group need the same --keys"
}

// Client is how to connect to the coordinator of a token. What it checks is the
// fingerprint, so it needs neither names nor a clock.
func (k *Key) Client(t Token) (*tls.Config, error) {
	cert, err := k.certificate(pkix.Name{CommonName: string(t.Role), SerialNumber: proof(t.Role, t.secret, k.public)})
	if err != nil {
		return nil, err
	}
	c := common()
	c.Certificates = []tls.Certificate{cert}
	c.InsecureSkipVerify = true // VerifyConnection does it
	c.VerifyConnection = func(state tls.ConnectionState) error { return isServer(state.PeerCertificates, t.print) }
	return c, nil
}

// ClientOf is how to connect to a coordinator that shows a certificate of its operator's:
// it is checked against roots, and against the host's name, as everywhere; the fingerprint
// in the token is not asked.
func (k *Key) ClientOf(t Token, roots *x509.CertPool, host string) (*tls.Config, error) {
	c, err := k.Client(t)
	if err != nil {
		return nil, err
	}
	c.InsecureSkipVerify, c.VerifyConnection = false, nil
	c.RootCAs, c.ServerName = roots, host
	return c, nil
}

// isServer checks the certificates of a server: its own is that of the fingerprint, or
// the authority of the fingerprint, which follows it, has signed it.
func isServer(chain []*x509.Certificate, print [printBytes]byte) error {
	if len(chain) == 0 {
		return &ServerError{"it has no certificate"}
	}
	if fingerprint(chain[0]) == print {
		return nil
	}
	if len(chain) < 2 || fingerprint(chain[1]) != print {
		return &ServerError{"its key is another one"}
	}
	if err := chain[0].CheckSignatureFrom(chain[1]); err != nil || chain[0].IsCA || chain[0].Subject.CommonName != string(Coordinator) {
		return &ServerError{"its certificate is not what it should be"}
	}
	return nil
}

func fingerprint(c *x509.Certificate) [printBytes]byte {
	return sha256.Sum256(c.RawSubjectPublicKeyInfo)
}

// Neighbours is how members of a ring talk to each other: each shows its key, and knows
// the other one by its id.
type Neighbours struct{ cert tls.Certificate }

// Neighbours of the process with this key.
func (k *Key) Neighbours() (*Neighbours, error) {
	cert, err := k.certificate(pkix.Name{CommonName: "ring"})
	return &Neighbours{cert}, err
}

// errStranger: who connects is none of those that may.
var errStranger = errors.New("not a member of this round")

// Server is the configuration in which a member is connected to by those that may says
// yes to; it is asked with the connection, see Proves.
func (n *Neighbours) Server(may func(*tls.ConnectionState) bool) *tls.Config {
	c := common()
	c.Certificates = []tls.Certificate{n.cert}
	c.ClientAuth = tls.RequireAnyClientCert
	c.VerifyConnection = func(state tls.ConnectionState) error {
		if !may(&state) {
			return errStranger
		}
		return nil
	}
	return c
}

// Proves says whether a connection's certificate proves an id.
func (n *Neighbours) Proves(state *tls.ConnectionState, id string) bool { return Proves(state, id) }

// Client is the configuration in which to connect to the member with an id.
func (n *Neighbours) Client(id string) *tls.Config {
	c := common()
	c.Certificates = []tls.Certificate{n.cert}
	c.InsecureSkipVerify = true
	c.VerifyConnection = func(state tls.ConnectionState) error {
		if !Proves(&state, id) {
			return fmt.Errorf("whoever answers there is not %s", id)
		}
		return nil
	}
	return c
}

// inbox is where the answers to the owner of a key go.
func inbox(public []byte) string { return "_INBOX." + hash(public) }

// Inbox is the subject below which the client of a connection hears answers.
func Inbox(state *tls.ConnectionState) string {
	return inbox(state.PeerCertificates[0].RawSubjectPublicKeyInfo)
}
