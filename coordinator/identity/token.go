package identity

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"strings"
)

// Role is what a token is for.
type Role string

// The roles. A coordinator's is no token's: who knows the root has it.
const (
	Join        Role = "join"        // replicas, and who lets them go
	Read        Role = "read"        // looks at the status
	Coordinator Role = "coordinator" // stands by, or leads
)

// letters are those of tokens, keys and ids.
var letters = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

const (
	printBytes  = 32 // of a fingerprint
	secretBytes = 20
)

// Token is what somebody joins with. It is a secret.
type Token struct {
	Role   Role
	print  [printBytes]byte // of the coordinator's key
	secret []byte
}

// ErrToken is the error for a text that is no token.
var ErrToken = errors.New("not a token: it is one line of the form mochi-join-…-…, without MOCHI_TOKEN=, as mochi token show prints it beside the coordinator")

// ParseToken reads a token; white space around it is no part of it. The error does not
// contain the text.
func ParseToken(text string) (t Token, err error) {
	parts := strings.Split(strings.TrimSpace(text), "-")
	if len(parts) != 4 || parts[0] != "mochi" {
		return t, ErrToken
	}
	switch t.Role = Role(parts[1]); t.Role {
	case Join, Read:
	default:
		return t, ErrToken
	}
	print, err := letters.DecodeString(parts[2])
	if err != nil || len(print) != printBytes {
		return t, fmt.Errorf("%w; its fingerprint is damaged: copy it again", ErrToken)
	}
	if t.secret, err = letters.DecodeString(parts[3]); err != nil || len(t.secret) != secretBytes {
		return t, fmt.Errorf("%w; its end is damaged: copy it again", ErrToken)
	}
	copy(t.print[:], print)
	if t.String() != strings.TrimSpace(text) { // letters that are too many
		return t, ErrToken
	}
	return t, nil
}

// String is the token as ParseToken reads it.
func (t Token) String() string {
	return fmt.Sprintf("mochi-%s-%s-%s", t.Role, letters.EncodeToString(t.print[:]), letters.EncodeToString(t.secret))
}

// GoString keeps the secret out of what %#v prints.
func (t Token) GoString() string { return "identity.Token{" + string(t.Role) + "}" }

// Fingerprint is that of the coordinator's key, for people.
func (t Token) Fingerprint() string { return letters.EncodeToString(t.print[:]) }

// GossipKey is what members encrypt their gossip with, nil of a token that has no
// business there.
func (t Token) GossipKey() []byte {
	if t.Role != Join {
		return nil
	}
	return derive(t.secret, "gossip", 32)
}

// proof is what shows that the owner of a public key (its SPKI in DER) knows a secret.
func proof(r Role, secret, public []byte) string {
	h := hmac.New(sha256.New, secret)
	fmt.Fprintf(h, "mochi %s\n", r)
	h.Write(public)
	return letters.EncodeToString(h.Sum(nil))
}
