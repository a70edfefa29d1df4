//go:build gpu

package library

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// Choices keeps measured algorithms on disk, sealed like compiled kernels. The
// first measurement counts: what two processes would measure differently, both
// compute alike. Name is that of the folder's choices, drawn when the first is
// made; engines whose choices have the same name round alike.
type Choices struct {
	Name  string
	cache Cache
}

// OpenChoices opens the user's, $XDG_CACHE_HOME/mochi/algorithms.
func OpenChoices() (*Choices, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return nil, fmt.Errorf("a folder for measured algorithms: %w", err)
	}
	c := &Choices{cache: Cache{filepath.Join(dir, "mochi", "algorithms")}}
	id, err := c.once("name", func() ([]byte, error) {
		id := make([]byte, 6)
		_, err := rand.Read(id)
		return id, err
	})
	c.Name = hex.EncodeToString(id)
	return c, err
}

// Get returns the choice for a key, measured now or before. One process
// measures at a time: two on one device would disturb each other.
func (c *Choices) Get(key string, measure func() (Algorithm, error)) (a Algorithm, err error) {
	text, err := c.once(key, func() ([]byte, error) {
		a, err := measure()
		if err != nil {
			return nil, err
		}
		return json.Marshal(a)
	})
	if err == nil {
		err = json.Unmarshal(text, &a)
	}
	return a, err
}

// Forget drops a choice, so that it is measured again.
func (c *Choices) Forget(key string) error {
	return os.Remove(filepath.Join(c.cache.Folder, name(key)))
}

// once is Cache.Get under a lock between processes. A choice that cannot be
// kept is an error: the next process would make another.
func (c *Choices) once(key string, build func() ([]byte, error)) ([]byte, error) {
	if err := os.MkdirAll(c.cache.Folder, 0o755); err != nil {
		return nil, fmt.Errorf("a folder for measured algorithms: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(c.cache.Folder, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("measured algorithms: %w", err)
	}
	defer lock.Close() // which unlocks
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return nil, fmt.Errorf("measured algorithms: lock %s: %w", lock.Name(), err)
	}
	kept, note, err := c.cache.Get(key, build)
	if err == nil && note != nil {
		err = fmt.Errorf("measured algorithms: %w", note)
	}
	return kept, err
}
