package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// operator is an authority of somebody's own; its files are PEM.
type operator struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newOperator(t *testing.T) operator {
	t.Helper()
	o := operator{dir: t.TempDir()}
	o.cert, o.key = o.sign(t, "ca", "")
	return o
}

// sign makes a certificate for a host, or the authority's own.
func (o operator) sign(t *testing.T, name, host string) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	by, with := o.cert, o.key
	if host == "" {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
		by, with = c, key
	} else {
		c.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, c, by, key.Public(), with)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, b := range map[string]*pem.Block{name + ".pem": {Type: "CERTIFICATE", Bytes: der}, name + ".key": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(filepath.Join(o.dir, file), pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return c, key
}

func (o operator) file(name string) string { return filepath.Join(o.dir, name) }

// An operator's certificate is believed for its name by who has the authority, and for its
// fingerprint by who has the token alone; coordinators on their own port go by their keys.
func TestAnOperatorsCertificate(t *testing.T) {
	o, other := newOperator(t), newOperator(t)
	o.sign(t, "a", "a.example")
	o.sign(t, "b", "b.example")
	root := NewRoot()
	roots, err := LoadRoots(o.file("ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	strangers, err := LoadRoots(other.file("ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	at := func(name string) *Authority {
		cert, err := LoadCertificate(o.file(name+".pem"), o.file(name+".key"))
		if err != nil {
			t.Fatal(err)
		}
		a, err := NewAuthority(root, nil, &Certificate{Cert: cert, Roots: roots})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	a, b := at("a"), at("b")
	token := a.Token(Join)
	by := func(r *x509.CertPool, text, address string) *tls.Config {
		c, err := (&Source{Key: NewKey(), Text: text, Roots: r}).Client(address)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	server, between, err := b.Between()
	if err != nil {
		t.Fatal(err)
	}
	peer, err := b.Peer().Client("a.example:4222")
	if err != nil {
		t.Fatal(err)
	}
	wrong := token
	wrong.secret = make([]byte, secretBytes)
	for name, c := range map[string]struct {
		server, client *tls.Config
		in             bool
	}{
		"the token's fingerprint":  {a.Server(Join), by(nil, token.String(), "x:1"), true},
		"another one's":            {b.Server(Join), by(nil, token.String(), "x:1"), false},
		"its authority":            {a.Server(Join), by(roots, token.String(), "a.example:4222"), true},
		"its authority, for b":     {b.Server(Join), by(roots, token.String(), "b.example:4222"), true},
		"another name":             {a.Server(Join), by(roots, token.String(), "b.example:4222"), false},
		"another authority":        {a.Server(Join), by(strangers, token.String(), "a.example:4222"), false},
		"the right authority, but": {a.Server(Join), by(roots, wrong.String(), "a.example:4222"), false},
		"a coordinator, joining":   {a.Server(Join, Coordinator), peer, true},
		"coordinators":             {server, between, true},
		"a replica among them":     {server, by(nil, b.Token(Join).String(), "x:1"), false},
	} {
		atServer, atClient := meet(c.server, c.client)
		if c.in != (atServer == nil) || c.in != (atClient == nil) {
			t.Errorf("%s: the server says %v, the client %v", name, atServer, atClient)
		}
	}
	for _, files := range [][2]string{{"a.pem", "b.key"}, {"a.pem", ""}, {"none.pem", "a.key"}, {"a.key", "a.key"}} {
		paths := [2]string{o.file(files[0]), o.file(files[1])}
		if files[1] == "" {
			paths[1] = ""
		}
		if _, err := LoadCertificate(paths[0], paths[1]); err == nil {
			t.Errorf("%v: taken", files)
		}
	}
	if _, err := LoadRoots(o.file("a.key")); err == nil || !strings.Contains(err.Error(), "PEM") {
		t.Error(err)
	}
}
