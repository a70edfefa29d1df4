package cli

import (
	"fmt"
	"math"
	"path/filepath"
	"strconv"
	"strings"

	"mochi/replica/data"
)

// Cache is where data of other machines are kept on this one: --cache-dir, --cache-bytes.
type Cache struct {
	dir   string
	bytes byteCount
	build func() string
}

// AddCache adds the flags. build says which program this is (engines.BuildIdentity).
func AddCache(c *Command, build func() string) *Cache {
	k := &Cache{build: build}
	c.StringVar(&k.dir, "cache-dir", "", "keep data that are named by an address, and unpacked .tar.gz shards, in this `DIR` (default: in ~/.cache/mochi); processes may share it")
	c.Var(&k.bytes, "cache-bytes", "`SIZE` of the data of addresses there at most, such as 200G (k, M, G, T are powers of 1024); what was used longest ago leaves. 0 = nine tenths of what is free there")
	return k
}

// apply puts the flags into the options of opening data.
func (k *Cache) apply(o *data.Options) {
	if k == nil {
		return
	}
	if k.dir != "" {
		o.Unpack = filepath.Join(k.dir, "unpacked")
	}
	o.Remote.Folder, o.Remote.Bytes, o.Remote.Build = k.dir, int64(k.bytes), k.build()
}

// byteCount is a flag of a number of bytes.
type byteCount int64

// units of bytes, the longer words first.
var units = []struct {
	word  string
	bytes float64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}, {"k", 1 << 10}, {"K", 1 << 10}, {"M", 1 << 20}, {"G", 1 << 30}, {"T", 1 << 40},
	{"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1}, {"", 1},
}

// String implements pflag.Value.
func (b *byteCount) String() string { return strconv.FormatInt(int64(*b), 10) }

// Type implements pflag.Value.
func (b *byteCount) Type() string { return "SIZE" }

// Set implements pflag.Value.
func (b *byteCount) Set(s string) error {
	for _, u := range units {
		number, is := strings.CutSuffix(s, u.word)
		if !is {
			continue
		}
		x, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if err != nil || !(x >= 0) || x*u.bytes >= math.MaxInt64 {
			break
		}
		*b = byteCount(x * u.bytes)
		return nil
	}
	return fmt.Errorf("want a number of bytes, such as 200G")
}
