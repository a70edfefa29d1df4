package natsbus

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"mochi/allreduce/natsserver/existing"
)

// certificate is one for an address, signed by itself.
func certificate(t *testing.T, ip string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	is := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.ParseIP(ip)},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, is, is, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}

// TestTLSOfNATS: NATS servers are reached by TLS when the address says so, or they demand
// it, with one address and with several; a certificate that is not theirs, or is not
// trusted, is refused; and what was to be encrypted never goes in the clear.
func TestTLSOfNATS(t *testing.T) {
	good, roots := certificate(t, "127.0.0.1")
	other, others := certificate(t, "10.0.0.1")
	secured := existing.Start(t, existing.Options{TLS: &tls.Config{Certificates: []tls.Certificate{good}}})
	foreign := existing.Start(t, existing.Options{TLS: &tls.Config{Certificates: []tls.Certificate{other}}})
	plain := existing.Start(t, existing.Options{})
	byTLS := func(s *existing.Servers) string { return strings.Replace(s.URLs[0], "nats://", "tls://", 1) }
	for name, c := range map[string]struct {
		url   string
		roots *x509.CertPool
		want  string // of the error, "": none
	}{
		"tls":                       {byTLS(secured), roots, ""},
		"tls, several":              {byTLS(secured) + ",tls://127.0.0.1:1", roots, ""},
		"demanded":                  {secured.URLs[0], roots, ""},
		"not trusted":               {byTLS(secured), others, "certificate"},
		"not trusted by the system": {byTLS(secured), nil, "certificate"},
		"of another address":        {byTLS(foreign), others, "10.0.0.1, not 127.0.0.1"},
		"not there":                 {byTLS(plain), roots, "secure connection not available"},
		"in the clear":              {plain.URLs[0], roots, ""},
	} {
		t.Run(name, func(t *testing.T) {
			bus, err := ConnectCoordinator(context.Background(), Options{Job: "test", URL: c.url, roots: c.roots})
			if err == nil {
				_, terr := bus.Conn().TLSConnectionState()
				if is := terr == nil; is != (name != "in the clear") {
					t.Errorf("encrypted: %v", is)
				}
				bus.Close()
			}
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v; want %q", err, c.want)
			}
		})
	}
}
