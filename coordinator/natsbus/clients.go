package natsbus

import "sync"

// clients are who is connected to an embedded server: the newest connection of each, by its
// number in the server's events.
type clients struct {
	mu     sync.Mutex
	newest map[string]uint64
}

// came says which connection of the same name there was before.
func (c *clients) came(name string, id uint64) (before uint64, open bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before, open = c.newest[name]
	c.newest[name] = max(before, id)
	return before, open
}

// went says whether it was the newest.
func (c *clients) went(name string, id uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if id < c.newest[name] {
		return false
	}
	delete(c.newest, name)
	return true
}

// of is the newest connection of a name.
func (c *clients) of(name string) (id uint64, open bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id, open = c.newest[name]
	return id, open
}
