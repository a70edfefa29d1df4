package identity

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzParseToken: a text is a token in one way only, and an error does not repeat it.
func FuzzParseToken(f *testing.F) {
	f.Add("mochi-join-" + strings.Repeat("a", 52) + "-" + strings.Repeat("b", 32))
	f.Add(" mochi-read--\n")
	f.Fuzz(func(t *testing.T, text string) {
		token, err := ParseToken(text)
		if err != nil {
			if secret := strings.TrimSpace(text); len(secret) > 40 && strings.Contains(err.Error(), secret) {
				t.Fatalf("%v tells what was read", err)
			}
			return
		}
		if token.String() != strings.TrimSpace(text) {
			t.Fatalf("%q is read as %q", text, token.String())
		}
	})
}

// FuzzReadRoot: a file of keys of any content is taken or refused.
func FuzzReadRoot(f *testing.F) {
	path := filepath.Join(f.TempDir(), "root")
	if err := NewRoot().Write(path); err != nil {
		f.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"seed":"aaaa","join":-1}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := ReadRoot(path)
		if err != nil {
			return
		}
		if err := r.Write(path); err != nil {
			t.Fatal(err)
		}
		if again, err := ReadRoot(path); err != nil || again != r {
			t.Fatalf("%+v became %+v, %v", r, again, err)
		}
	})
}
