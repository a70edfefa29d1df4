package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
)

// Certificate is what an operator has instead of a certificate that the authority makes.
type Certificate struct {
	Cert  tls.Certificate
	Roots *x509.CertPool // of who signed those of the other coordinators; nil where there are none
}

// LoadCertificate reads a chain, the server's own certificate first, and its key, in PEM.
func LoadCertificate(cert, key string) (tls.Certificate, error) {
	if cert == "" || key == "" {
		return tls.Certificate{}, errors.New("a certificate and its key belong together: give both files")
	}
	c, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return c, fmt.Errorf("%s with key %s: %w", cert, key, err)
	}
	return c, nil
}

// LoadRoots reads certificates of authorities, in PEM.
func LoadRoots(path string) (*x509.CertPool, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", path)
	}
	return roots, nil
}
