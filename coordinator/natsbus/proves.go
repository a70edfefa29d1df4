package natsbus

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"mochi/coordinator/smallfile"
)

// maxCredentials bounds a file of credentials.
const maxCredentials = 1 << 20

// CheckCredentials says what is wrong with a file of credentials, which is only read
// otherwise when NATS asks.
func CheckCredentials(file string) error {
	text, err := smallfile.Read(file, maxCredentials)
	if err != nil {
		return err
	}
	_, err = nkeys.ParseDecoratedJWT(text)
	if err == nil {
		var key nkeys.KeyPair
		if key, err = nkeys.ParseDecoratedUserNKey(text); err == nil {
			key.Wipe()
		}
	}
	if err != nil {
		return fmt.Errorf("%s is no file of NATS credentials, with a user's JWT and its seed as nsc writes them: %w", file, err)
	}
	return nil
}

// proves are the options by which both ends of a connection prove who they are: the
// credentials of this one, and where there is TLS the certificate of the server, for the
// host that was dialled.
func (d *dialer) proves() []nats.Option {
	verified := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, // NATS's client knows one address; VerifyConnection the one that was dialled
		VerifyConnection: func(s tls.ConnectionState) error {
			host, _, err := net.SplitHostPort(d.at())
			if err != nil {
				return err
			}
			if len(s.PeerCertificates) == 0 {
				return errors.New("the server has no certificate")
			}
			between := x509.NewCertPool()
			for _, c := range s.PeerCertificates[1:] {
				between.AddCert(c)
			}
			_, err = s.PeerCertificates[0].Verify(x509.VerifyOptions{DNSName: host, Roots: d.roots, Intermediates: between})
			return err
		},
	}
	opts := []nats.Option{
		nats.IgnoreAuthErrorAbort(), // credentials may be renewed while this waits
		func(o *nats.Options) error { o.TLSConfig = verified; return nil },
	}
	if d.where.secure {
		opts = append(opts, func(o *nats.Options) error { o.Secure = true; return nil })
	}
	if d.where.creds != "" {
		opts = append(opts, nats.UserCredentials(d.where.creds))
	}
	return opts
}

// refused says whether a server does not take who connects.
func refused(err error) bool {
	for _, is := range []error{nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAuthRevoked, nats.ErrAccountAuthExpired, nats.ErrNoUserCB, nats.ErrNkeysNotSupported} {
		if errors.Is(err, is) {
			return true
		}
	}
	return false
}

// whoWasRefused is what to do about it.
func (a *Addresses) whoWasRefused() string {
	if a.creds == "" {
		return "it wants credentials; name their file with --nats-creds"
	}
	return fmt.Sprintf("it does not take the credentials in %s (--nats-creds): they must be those of a user of an account that these servers know, and not have expired", a.creds)
}
