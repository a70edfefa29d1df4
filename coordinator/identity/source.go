package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"sync"

	"mochi/coordinator/smallfile"
)

// TokenVariable is the environment variable that may hold a token.
const TokenVariable = "MOCHI_TOKEN"

// Source is where the token of who joins comes from: a file, the environment, or what a
// coordinator of the same user on the same machine has left. It is asked at each
// connection, so it may come later than who waits for it, and may change. It is safe for
// concurrent use.
type Source struct {
	Key      *Key   // of this process
	File     string // --token-file, "" for none
	Text     string // MOCHI_TOKEN, "" for none
	Insecure bool   // in the clear, whatever there is
	Joins    bool   // a token to read with is not enough

	Roots *x509.CertPool // of who signed the coordinator's certificate; nil: the fingerprint of the token is checked

	mu     sync.Mutex
	kept   *Token // the last one that there was
	last   Token
	config *tls.Config // for last
}

// Check says what is wrong with what is given. A file that is not there yet is not wrong.
func (s *Source) Check() error {
	_, err := s.given()
	return err
}

// errReads: a token is not enough.
var errReads = errors.New("this token reads the status only; to join takes the other one (mochi token show)")

// given is the token that the flags and the environment have, nil for none.
func (s *Source) given() (*Token, error) {
	t, err := s.text()
	if t != nil && s.Joins && t.Role != Join {
		return nil, errReads
	}
	return t, err
}

func (s *Source) text() (*Token, error) {
	switch {
	case s.Insecure:
		return nil, nil
	case s.File != "":
		t, err := readToken(s.File)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return t, err
	case s.Text != "":
		t, err := ParseToken(s.Text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", TokenVariable, err)
		}
		return &t, nil
	}
	return nil, nil
}

// Token is the one for a coordinator at HOST:PORT, nil when there is none. One that was
// there and is there no more is still used: whoever takes it away cannot make this process
// talk in the clear to whoever answers.
func (s *Source) Token(address string) (*Token, error) {
	t, err := s.now(address)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case t != nil:
		s.kept = t
	case s.kept != nil:
		return s.kept, nil
	}
	return t, err
}

// now is the token that there is at the moment.
func (s *Source) now(address string) (*Token, error) {
	t, err := s.given()
	if err == nil && t == nil && !s.Insecure {
		if s.File == "" {
			return found(address)
		}
		return nil, fmt.Errorf("there is no token in %s yet; the coordinator writes it there when it is started with --token-file, and mochi token show prints it", s.File)
	}
	return t, err
}

// Client is how to connect to the coordinator at HOST:PORT; nil: in the clear.
func (s *Source) Client(address string) (*tls.Config, error) {
	t, err := s.Token(address)
	if t == nil || err != nil {
		return nil, err
	}
	if s.Roots != nil {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		return s.Key.ClientOf(*t, s.Roots, host)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.config == nil || s.last.String() != t.String() {
		config, err := s.Key.Client(*t)
		if err != nil {
			return nil, err
		}
		s.last, s.config = *t, config
	}
	return s.config, nil
}

func readToken(path string) (*Token, error) {
	text, err := smallfile.Read(path, maxPrivate)
	if err != nil {
		return nil, err
	}
	if strings.TrimSpace(string(text)) == "" {
		return nil, fs.ErrNotExist // somebody is about to write it
	}
	t, err := ParseToken(string(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &t, nil
}

// WriteToken writes a token to a file for its owner only, unless it stands there already.
func WriteToken(path string, t Token) error {
	if have, err := readPrivate(path); err == nil && string(have) == t.String()+"\n" {
		return nil
	}
	if err := writePrivate(path, []byte(t.String()+"\n")); err != nil {
		return fmt.Errorf("write the token: %w", err)
	}
	return nil
}

// Inbox is the subject below which this process hears answers.
func (s *Source) Inbox() string { return inbox(s.Key.public) }

// Fixed says whether another attempt would be made with the same token.
func (s *Source) Fixed() bool { return s.Text != "" && s.File == "" && !s.Insecure }
