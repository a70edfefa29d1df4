package identity

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"mochi/coordinator/smallfile"
)

// rootFile is the file of a root in the folder that it is kept in.
const rootFile = "root.json"

// Root is what a coordinator's keys follow from. It is a secret.
type Root struct {
	Seed string `json:"root"` // 32 bytes
	Join int    `json:"join"` // how often the token to join with was changed
	Read int    `json:"read"` // likewise the one to read with
}

// NewRoot draws one.
func NewRoot() Root {
	seed := make([]byte, ed25519.SeedSize)
	_, _ = rand.Read(seed) // it never fails
	return Root{Seed: letters.EncodeToString(seed)}
}

// LoadRoot reads the root in a folder; fs.ErrNotExist when there is none. A folder or a
// file that others may read is an error.
func LoadRoot(dir string) (Root, error) { return ReadRoot(filepath.Join(dir, rootFile)) }

// ReadRoot reads a root from a file.
func ReadRoot(path string) (r Root, err error) {
	text, err := readPrivate(path)
	if err != nil {
		return r, fmt.Errorf("read the coordinator's keys: %w", err)
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return r, fmt.Errorf("read the coordinator's keys: %s: %w", path, err)
	}
	if _, err := r.seed(); err != nil {
		return r, fmt.Errorf("read the coordinator's keys: %s: %w", path, err)
	}
	return r, nil
}

// Save writes the root into a folder, which is made: a temporary file, synced and
// renamed, for its owner only. Where it stands there already nothing is written, so that
// a full disk is in nobody's way.
func (r Root) Save(dir string) error {
	if have, err := LoadRoot(dir); err == nil && have == r {
		return nil
	}
	return r.Write(filepath.Join(dir, rootFile))
}

// Write writes the root to a file.
func (r Root) Write(path string) error {
	text, err := json.Marshal(r)
	if err == nil {
		err = writePrivate(path, append(text, '\n'))
	}
	if err != nil {
		return fmt.Errorf("keep the coordinator's keys: %w", err)
	}
	return nil
}

// OpenRoot loads the root in a folder, or makes one there. made says which.
func OpenRoot(dir string) (r Root, made bool, err error) {
	r, err = LoadRoot(dir)
	if !errors.Is(err, fs.ErrNotExist) {
		return r, false, err
	}
	r = NewRoot()
	return r, true, r.Save(dir)
}

// Rotate changes the token of a role: the one before lets nobody in any more.
func (r *Root) Rotate(role Role) {
	switch role {
	case Join:
		r.Join++
	case Read:
		r.Read++
	}
}

// Token is the one of a role, with the fingerprint of the authority; see
// Authority.Token.
func (r Root) token(role Role, print [printBytes]byte) Token {
	generation := r.Join
	if role == Read {
		generation = r.Read
	}
	return Token{Role: role, print: print, secret: r.derive(fmt.Sprintf("%s %d", role, generation), secretBytes)}
}

func (r Root) seed() ([]byte, error) {
	seed, err := letters.DecodeString(r.Seed)
	if err != nil || len(seed) != ed25519.SeedSize {
		return nil, errors.New("it holds no root: restore it, or remove it so that a new one is made and every token changes")
	}
	return seed, nil
}

// derive makes a key for a purpose; the seed was checked.
func (r Root) derive(purpose string, bytes int) []byte {
	seed, err := r.seed()
	if err != nil {
		panic(err)
	}
	return derive(seed, purpose, bytes)
}

func derive(secret []byte, purpose string, bytes int) []byte {
	key, err := hkdf.Key(sha256.New, secret, nil, "mochi "+purpose, bytes)
	if err != nil {
		panic(err) // only of lengths
	}
	return key
}

// maxPrivate bounds what is read of a file that should hold a key.
const maxPrivate = 64 << 10

// readPrivate reads a file that only its owner may read.
func readPrivate(path string) ([]byte, error) {
	text, info, err := smallfile.ReadInfo(path, maxPrivate)
	switch {
	case err != nil:
		return nil, err
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("others may read %s (mode %04o): chmod 600 it, and if somebody may have read it, make new keys", path, info.Mode().Perm())
	}
	return text, nil
}

// writePrivate writes a file for its owner only, whole or not at all.
func writePrivate(path string, data []byte) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
