package evaluate

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"mochi/model/engine"
	"mochi/model/eval"
	"mochi/replica/data"
)

// caching is a linear evaluation as far as its features.
func caching(t *testing.T, e *Encoders, c *Cache) *linear {
	t.Helper()
	x, err := e.extractor(engine.Query, eval.Backbone)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(x.Close)
	return &linear{Encoders: e, LinearOptions: LinearOptions{Cache: c}, set: &data.Set{}, x: x}
}

func same(a, b *extracted) bool {
	return slices.Equal(a.features[0], b.features[0]) && slices.Equal(a.samples, b.samples) && slices.Equal(a.hashes, b.hashes) &&
		slices.Equal(a.labels, b.labels) && a.leftOut == b.leftOut
}

// What a cache gives is what the encoder gives, whenever it broke off before.
func TestCacheGoesOn(t *testing.T) {
	enc := encoders(t)
	ds := shades{n: 4*evalBatch + 7, size: 12, bad: map[int]bool{3: true, evalBatch + 1: true, 4*evalBatch + 6: true}}
	s := all(ds, 0)
	plainly := caching(t, enc, nil)
	want, err := plainly.extract(t.Context(), "training", s, plain(12))
	if err != nil {
		t.Fatal(err)
	}
	c := &Cache{Dir: filepath.Join(t.TempDir(), "deep", "features")}
	records := 0
	full := errors.Join(syscall.ENOSPC)
	c.write = func(f *os.File, b []byte) error {
		if records++; records > 3 { // the header, two records, and half of a third
			_, _ = f.Write(b[:len(b)/2])
			return full
		}
		_, err := f.Write(b)
		return err
	}
	if _, err := caching(t, enc, c).extract(t.Context(), "training", s, plain(12)); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "make room") {
		t.Fatalf("a full disk: %v", err)
	}
	c.write = nil
	l := caching(t, enc, c)
	ctx, cancel := context.WithCancel(t.Context())
	c.write = func(f *os.File, b []byte) error { cancel(); _, err := f.Write(b); return err }
	if _, err := l.extract(ctx, "training", s, plain(12)); !errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled: %v", err)
	}
	if l.seen > 3*evalBatch {
		t.Errorf("%d images went through the encoder again", l.seen)
	}
	c.write = nil
	last := caching(t, enc, c)
	got, err := last.extract(t.Context(), "training", s, plain(12))
	if err != nil || !same(got, want) {
		t.Fatalf("resumed features differ (%v)", err)
	}
	if last.seen == 0 || last.seen > 2*evalBatch+7 {
		t.Errorf("%d images were left", last.seen)
	}
	again := caching(t, enc, c)
	if got, err = again.extract(t.Context(), "training", s, plain(12)); err != nil || again.seen != 0 || !same(got, want) {
		t.Errorf("%d images are not taken from the cache (%v)", again.seen, err)
	}
	if left, _ := filepath.Glob(filepath.Join(c.Dir, "*.partial")); len(left) > 0 {
		t.Errorf("%q is left", left)
	}
}

// Another checkpoint, split, view, feature or format has another file; one that says
// to be of something else is refused.
func TestCacheIsOfOneThing(t *testing.T) {
	enc := encoders(t)
	s := all(shades{n: 5, size: 12}, 0)
	c := &Cache{Dir: t.TempDir()}
	take := func(e *Encoders, c *Cache, s samples, v view) int {
		l := caching(t, e, c)
		if _, err := l.extract(t.Context(), "training", s, v); err != nil {
			t.Fatal(err)
		}
		return l.seen
	}
	take(enc, c, s, plain(12))
	other := encoders(t)
	changed := *other.from
	changed.QueryParams = slices.Clone(changed.QueryParams)
	changed.QueryParams[0]++
	other.from = &changed
	for name, n := range map[string]int{
		"checkpoint": take(other, c, s, plain(12)), "split": take(enc, c, all(shades{n: 4, size: 12}, 0), plain(12)),
		"view": take(enc, c, s, cropFlip(12, 1, 0)), "seed": take(enc, c, s, cropFlip(12, 2, 0)),
		"format": take(enc, &Cache{Dir: c.Dir, Half: true}, s, plain(12)),
	} {
		if n == 0 {
			t.Errorf("features of another %s are taken", name)
		}
	}
	if take(enc, c, s, plain(12)) != 0 {
		t.Error("its own features are not taken")
	}
	o, err := enc.originOf(caching(t, enc, c).x, s, plain(12), "", c)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(c.Dir, o.name())
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"of something else": []byte(strings.Replace(string(whole), `"Images":5`, `"Images":6`, 1)),
		"cut short":         whole[:len(whole)-1], "flipped": append(slices.Clone(whole[:len(whole)-9]), append([]byte{whole[len(whole)-9] ^ 1}, whole[len(whole)-8:]...)...),
		"empty": nil,
	} {
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := caching(t, enc, c).extract(t.Context(), "training", s, plain(12)); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "remove it") {
			t.Errorf("a file that is %s: %v", name, err)
		}
	}
}

func TestHalves(t *testing.T) {
	for h := range 1 << 16 {
		v := fromHalf(uint16(h))
		if v != v {
			if h>>10&0x1f != 0x1f || h&0x3ff == 0 {
				t.Fatalf("%#x is no number", h)
			}
			continue
		}
		if got := toHalf(v); int(got) != h {
			t.Fatalf("%#x is %g, which is %#x", h, v, got)
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 100_000 {
		v := float32(math.Exp2(40*rng.Float64()-25) * (rng.Float64() - 0.5))
		h := toHalf(v)
		if math.Abs(float64(v)) >= 65520 {
			if h&0x7fff != 0x7c00 {
				t.Fatalf("%g becomes %#x", v, h)
			}
			continue
		}
		off := math.Abs(float64(fromHalf(h)) - float64(v))
		for _, beside := range []uint16{h - 1, h + 1} {
			if b := fromHalf(beside); b == b && math.Abs(float64(b)-float64(v)) < off {
				t.Fatalf("%g becomes %g, and %g is nearer", v, fromHalf(h), b)
			}
		}
	}
}
