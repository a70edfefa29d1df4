package data

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"mochi/replica/augment"
	"mochi/replica/data/sampler"
)

// fakeSet is a data set of small images in memory; some samples are corrupt.
type fakeSet struct {
	n       int
	corrupt map[int]bool
	decodes atomic.Int64
	gate    chan struct{} // when set, each Decode takes one token
	broken  error         // what Decode returns, when set
}

func (f *fakeSet) Len() int          { return f.n }
func (f *fakeSet) Classes() int      { return 2 }
func (f *fakeSet) Label(i int) int32 { return int32(i % 2) }
func (f *fakeSet) Path(i int) string { return fmt.Sprintf("image %d", i) }

func (f *fakeSet) Decode(i int, d *Decoder) (*augment.Image, error) {
	f.decodes.Add(1)
	if f.gate != nil {
		<-f.gate
	}
	if f.broken != nil {
		return nil, f.broken
	}
	if f.corrupt[i] {
		return nil, &CorruptError{Path: f.Path(i), Err: errors.New("bad")}
	}
	img := d.Image(9+i%3, 8)
	for j := range img.Pix {
		img.Pix[j] = uint8(i*31 + j*j)
	}
	return img, nil
}

// of are draws of samples in one epoch.
func of(epoch int, samples ...int) []Ref {
	var refs []Ref
	for _, s := range samples {
		refs = append(refs, Ref{Sample: s, Epoch: epoch})
	}
	return refs
}

func recipe(t testing.TB, name string) augment.Recipe {
	t.Helper()
	r, err := augment.New(name, 6)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// stepRequest asks for the groups of a step of 12 samples in groups of 4, key
// views shuffled over the whole batch.
func stepRequest(s *sampler.Sampler, step int64, groups ...int) Request {
	const size, g = 12, 4
	cursor := (step - 1) * size
	refs, perm := s.Batch(cursor, size), s.Shuffle(cursor, size)
	r := Request{Step: step}
	for _, group := range groups {
		keys := make([]Ref, g)
		for i := range keys {
			keys[i] = refs[perm[group*g+i]]
		}
		r.Query = append(r.Query, refs[group*g:(group+1)*g])
		r.Key = append(r.Key, keys)
	}
	return r
}

// What is delivered does not depend on workers, depth, or the other groups of
// the request; it equals a plain computation, corrupt samples replaced by the
// next ones.
func TestBatchesEqualAPlainComputation(t *testing.T) {
	rec := recipe(t, augment.MoCoV2)
	order := sampler.New(17, 5)
	corrupt := map[int]bool{3: true, 4: true, 16: true}
	replacement := map[int]int{3: 5, 4: 5, 16: 0}
	plain := func(ref Ref, view int) []float32 {
		at := ref.Sample
		if r, bad := replacement[at]; bad {
			at = r
		}
		img, err := (&fakeSet{n: 17}).Decode(at, NewDecoder())
		if err != nil {
			t.Fatal(err)
		}
		dst := make([]float32, rec.ViewLen())
		augment.NewWorker(rec).View(img, augment.Seed(11, ref.Epoch, ref.Sample, view), dst)
		return dst
	}
	for _, config := range []LoaderConfig{{Seed: 11, Workers: 1}, {Seed: 11, Workers: 2, Depth: 1}, {Seed: 11, Workers: 7, Depth: 5}} {
		set := &fakeSet{n: 17, corrupt: corrupt}
		l := NewLoader(set, rec, config)
		var requests []Request
		for step := int64(1); step <= 8; step++ {
			groups := [][]int{{0, 1, 2}, {1}, {2, 0}}[step%3]
			requests = append(requests, stepRequest(order, step, groups...))
			if err := l.Submit(requests[step-1]); err != nil {
				t.Fatal(err)
			}
		}
		for _, r := range requests {
			b, _, err := l.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if b.Step != r.Step || len(b.Query) != len(r.Query) || len(b.Key) != len(r.Key) {
				t.Fatalf("got step %d with %d and %d groups, want step %d", b.Step, len(b.Query), len(b.Key), r.Step)
			}
			check := func(name string, got [][]float32, refs [][]Ref, view int) {
				for group := range refs {
					for i, ref := range refs[group] {
						n := rec.ViewLen()
						if !slices.Equal(got[group][i*n:(i+1)*n], plain(ref, view)) {
							t.Fatalf("%d workers: step %d: %s view of %v differs", config.Workers, r.Step, name, ref)
						}
					}
				}
			}
			check("query", b.Query, r.Query, augment.QueryView)
			check("key", b.Key, r.Key, augment.KeyView)
			b.Release()
			b.Release()
		}
		stats := l.Stats()
		if slices.Sort(stats.Paths); stats.Corrupt != 3 || !slices.Equal(stats.Paths, []string{"image 16", "image 3", "image 4"}) {
			t.Errorf("%d workers: corrupt %d: %v", config.Workers, stats.Corrupt, stats.Paths)
		}
		views := 0
		for _, r := range requests {
			views += 2 * 4 * len(r.Query)
		}
		if stats.Views != views || stats.Decoded >= views {
			t.Errorf("%d workers: %d decodes made %d views, want %d from fewer", config.Workers, stats.Decoded, stats.Views, views)
		}
		l.Close()
	}
}

// Both views of a sample need one decode; the same sample of two epochs is
// two.
func TestOneDecodeServesBothViews(t *testing.T) {
	set := &fakeSet{n: 3}
	l := NewLoader(set, recipe(t, augment.CIFAR), LoaderConfig{Workers: 3})
	defer l.Close()
	refs := append(of(0, 0, 1, 2), of(1, 1)...)
	if err := l.Submit(Request{Query: [][]Ref{refs}, Key: [][]Ref{{refs[3], refs[0]}, {refs[2], refs[1]}}}); err != nil {
		t.Fatal(err)
	}
	b, _, err := l.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n := len(b.Query[0]) / 4
	if n := set.decodes.Load(); n != 4 {
		t.Errorf("%d decodes, want 4", n)
	}
	if slices.Equal(b.Query[0][:n], b.Key[0][n:2*n]) {
		t.Error("the two views of a sample are one")
	}
	if slices.Equal(b.Query[0][n:2*n], b.Query[0][3*n:]) {
		t.Error("the view does not depend on the epoch")
	}
}

// A corrupt sample is reported once, however often it is met.
func TestCorruptIsReportedOnce(t *testing.T) {
	var log strings.Builder
	set := &fakeSet{n: 4, corrupt: map[int]bool{1: true}}
	l := NewLoader(set, recipe(t, augment.None), LoaderConfig{Workers: 1, Log: slog.New(slog.NewTextHandler(&log, nil))})
	for range 5 {
		if err := l.Submit(Request{Query: [][]Ref{of(0, 1, 0)}}); err != nil {
			t.Fatal(err)
		}
		b, _, err := l.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		b.Release()
	}
	l.Close()
	if n := strings.Count(log.String(), "path=\"image 1\""); n != 1 || strings.Count(log.String(), "\n") != 1 {
		t.Errorf("reported %d times:\n%s", n, log.String())
	}
}

func TestErrorsReachNext(t *testing.T) {
	all := map[int]bool{0: true, 1: true, 2: true}
	diskFails := errors.New("disk fails")
	for name, c := range map[string]struct {
		set  *fakeSet
		want string
	}{
		"all corrupt":  {&fakeSet{n: 3, corrupt: all}, "3 samples in a row cannot be decoded, the last being image 0: bad"},
		"the system's": {&fakeSet{n: 3, broken: diskFails}, "disk fails"},
	} {
		l := NewLoader(c.set, recipe(t, augment.None), LoaderConfig{Workers: 2})
		for step := range int64(3) {
			if err := l.Submit(Request{Step: step, Query: [][]Ref{of(0, 1, 1, 1, 1, 1)}}); err != nil {
				t.Fatal(err)
			}
		}
		for step := range int64(3) {
			_, _, err := l.Next(t.Context())
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), fmt.Sprintf("step %d", step)) {
				t.Errorf("%s: %v, want step %d and %q", name, err, step, c.want)
			}
		}
		l.Close()
	}
	l := NewLoader(&fakeSet{n: 3}, recipe(t, augment.None), LoaderConfig{Workers: 1})
	if err := l.Submit(Request{Step: 4, Key: [][]Ref{of(0, 3)}}); err == nil || !strings.Contains(err.Error(), "sample 3 of a data set of 3") {
		t.Errorf("a sample out of range: %v", err)
	}
	if _, _, err := l.Next(t.Context()); !errors.Is(err, ErrNothingSubmitted) {
		t.Errorf("nothing submitted: %v", err)
	}
	l.Close()
	if _, _, err := l.Next(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("Next after Close: %v", err)
	}
	if err := l.Submit(Request{}); !errors.Is(err, ErrClosed) {
		t.Errorf("Submit after Close: %v", err)
	}
}

// The loader works Depth requests ahead, no further; taking one lets the next
// one in. A request without a group is ready at once.
func TestBackPressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := &fakeSet{n: 8}
		l := NewLoader(set, recipe(t, augment.None), LoaderConfig{Workers: 3, Depth: 2})
		defer l.Close()
		refs := [][]Ref{of(0, 0, 1, 2, 3, 4)}
		for range 6 {
			if err := l.Submit(Request{Query: refs}); err != nil {
				t.Fatal(err)
			}
		}
		for taken := range 4 {
			synctest.Wait()
			if got, want := set.decodes.Load(), int64(5*(taken+2)); got != want {
				t.Fatalf("%d images decoded with %d requests taken, want %d", got, taken, want)
			}
			b, wait, err := l.Next(t.Context())
			if err != nil || wait != 0 {
				t.Fatalf("waited %v for a batch that is ready, error %v", wait, err)
			}
			b.Release()
		}
		l.Reset()
		if err := l.Submit(Request{Step: 9}); err != nil {
			t.Fatal(err)
		}
		b, _, err := l.Next(t.Context())
		if err != nil || b.Step != 9 || len(b.Query)+len(b.Key) != 0 {
			t.Errorf("an empty request: %v, %v", b, err)
		}
	})
}

// Next reports how long it waited, and gives up with its context while the
// request stays.
func TestNextWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := &fakeSet{n: 2, gate: make(chan struct{})}
		l := NewLoader(set, recipe(t, augment.None), LoaderConfig{Workers: 1})
		defer l.Close()
		if err := l.Submit(Request{Query: [][]Ref{of(0, 0, 1)}}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, wait, err := l.Next(ctx); !errors.Is(err, context.DeadlineExceeded) || wait != time.Second {
			t.Errorf("waited %v, error %v", wait, err)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			for range 2 {
				time.Sleep(3 * time.Second) // the bubble's clock: what an image takes
				set.gate <- struct{}{}
			}
		})
		if _, wait, err := l.Next(t.Context()); err != nil || wait != 6*time.Second {
			t.Errorf("waited %v, error %v", wait, err)
		}
		wg.Wait()
		if wait := l.Stats().Wait; wait != 7*time.Second {
			t.Errorf("waited %v in all", wait)
		}
	})
}

// Reset in the middle of decoding drops everything submitted, wakes a waiting
// Next, and never lets an abandoned image into a later batch.
func TestReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := &fakeSet{n: 9, gate: make(chan struct{})}
		rec := recipe(t, augment.CIFAR)
		l := NewLoader(set, rec, LoaderConfig{Workers: 2})
		defer l.Close()
		for range 3 {
			if err := l.Submit(Request{Query: [][]Ref{of(0, 0, 1, 2)}}); err != nil {
				t.Fatal(err)
			}
		}
		woken := make(chan error)
		go func() {
			_, _, err := l.Next(t.Context())
			woken <- err
		}()
		synctest.Wait() // two images are being decoded
		l.Reset()
		if err := <-woken; !errors.Is(err, ErrReset) {
			t.Errorf("a waiting Next: %v", err)
		}
		want := of(1, 6, 7, 8)
		if err := l.Submit(Request{Step: 5, Query: [][]Ref{want}}); err != nil {
			t.Fatal(err)
		}
		close(set.gate)
		b, _, err := l.Next(t.Context())
		if err != nil || b.Step != 5 {
			t.Fatalf("after Reset: %v, %v", b, err)
		}
		synctest.Wait()
		for i, ref := range want {
			img, _ := set.Decode(ref.Sample, NewDecoder())
			view := make([]float32, rec.ViewLen())
			augment.NewWorker(rec).View(img, augment.Seed(0, ref.Epoch, ref.Sample, augment.QueryView), view)
			if !slices.Equal(b.Query[0][i*len(view):(i+1)*len(view)], view) {
				t.Errorf("view %d is of an abandoned request", i)
			}
		}
		// Ready batches are dropped too.
		if err := l.Submit(Request{Query: [][]Ref{want}}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		l.Reset()
		if _, _, err := l.Next(t.Context()); !errors.Is(err, ErrNothingSubmitted) {
			t.Errorf("Next after Reset: %v", err)
		}
	})
}

// Close in the middle of decoding ends every goroutine (the bubble would
// report one left) and wakes a waiting Next.
func TestCloseEndsTheWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := &fakeSet{n: 9, gate: make(chan struct{})}
		l := NewLoader(set, recipe(t, augment.None), LoaderConfig{Workers: 3})
		if err := l.Submit(Request{Query: [][]Ref{of(0, 0, 1, 2, 3)}}); err != nil {
			t.Fatal(err)
		}
		woken := make(chan error)
		go func() {
			_, _, err := l.Next(t.Context())
			woken <- err
		}()
		synctest.Wait()
		go close(set.gate)
		l.Close()
		if err := <-woken; !errors.Is(err, ErrClosed) && err != nil {
			t.Errorf("a waiting Next: %v", err)
		}
	})
}

// Buffers go round: in the steady state no batch is allocated.
func TestBuffersAreReused(t *testing.T) {
	l := NewLoader(&fakeSet{n: 8}, recipe(t, augment.None), LoaderConfig{Workers: 1, Depth: 1})
	defer l.Close()
	seen := map[*float32]bool{}
	for range 10 {
		if err := l.Submit(Request{Query: [][]Ref{of(0, 0, 1)}, Key: [][]Ref{of(0, 1, 0)}}); err != nil {
			t.Fatal(err)
		}
		b, _, err := l.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		seen[&b.Query[0][0]], seen[&b.Key[0][0]] = true, true
		b.Release()
	}
	if len(seen) != 2 {
		t.Errorf("%d buffers for batches of two", len(seen))
	}
}

func TestBench(t *testing.T) {
	set := &fakeSet{n: 50, corrupt: map[int]bool{7: true}}
	r, err := Bench(t.Context(), set, recipe(t, augment.CIFAR), 2, 60*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if r.ImagesPerS <= 0 || r.DecodeOnlyImagesPerS <= 0 || r.Corrupt != 1 {
		t.Errorf("got %+v", r)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Bench(ctx, &fakeSet{n: 5}, recipe(t, augment.CIFAR), 1, 0); err == nil {
		t.Error("a cancelled benchmark succeeds")
	}
}
