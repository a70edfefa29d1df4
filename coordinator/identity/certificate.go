package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"mochi/coordinator/smallfile"
)

// Certificate is what an operator has instead of a certificate that the authority makes.
type Certificate struct {
	Cert  tls.Certificate
	Roots *x509.CertPool // of who signed those of the other coordinators; nil where there are none
}

// maxChain bounds a file of certificates: that of all authorities of a system has some 250 KB.
const maxChain = 4 << 20

// LoadCertificate reads a chain, the server's own certificate first, and its key, in PEM.
func LoadCertificate(cert, key string) (tls.Certificate, error) {
	if cert == "" || key == "" {
		return tls.Certificate{}, errors.New("a certificate and its key belong together: give both files")
	}
	public, err := smallfile.Read(cert, maxChain)
	private, err2 := smallfile.Read(key, maxChain)
	if err := errors.Join(err, err2); err != nil {
		return tls.Certificate{}, err
	}
	c, err := tls.X509KeyPair(public, private)
	if err != nil {
		return c, fmt.Errorf("%s with key %s: %w", cert, key, err)
	}
	return c, nil
}

// LoadRoots reads certificates of authorities, in PEM.
func LoadRoots(path string) (*x509.CertPool, error) {
	text, err := smallfile.Read(path, maxChain)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", path)
	}
	return roots, nil
}
