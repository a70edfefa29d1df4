package data

import (
	"encoding/binary"
	"fmt"
	"image"
	"math"
	"path/filepath"
	"testing"
	"testing/synctest"

	"github.com/cespare/xxhash/v2"

	"mochi/replica/augment"
	"mochi/replica/data/sampler"
)

// hashViews is a hash of a group's views.
func hashViews(views []float32) uint64 {
	h := xxhash.New()
	var b [4]byte
	for _, v := range views {
		binary.LittleEndian.PutUint32(b[:], math.Float32bits(v))
		h.Write(b[:])
	}
	return h.Sum64()
}

// The batches are the same for 1, 2 and 7 workers, 1 and 3 replicas, and for a
// folder, its shards and their mixture of JPEG and PNG; corrupt ones included.
func TestBatchesDoNotDependOnTheMachine(t *testing.T) {
	dir, tars := t.TempDir(), filepath.Join(t.TempDir(), "x.tar")
	var members []member
	for i := range 20 {
		name, content := fmt.Sprintf("c%d/%02d.jpg", i/10, i), jpegBytes(t, picture(40+i, 30+2*i, i))
		switch {
		case i == 7:
			content = content[:len(content)/2]
		case i%4 == 1:
			content = pngBytes(t, image.Image(picture(33, 21+i, i)))
		case i%4 == 2:
			content = withOrientation(content, binary.BigEndian, 1+i%8)
		}
		write(t, filepath.Join(dir, name), content)
		members = append(members, member{name, content})
	}
	write(t, tars, tarBytes(t, members...))
	rec, err := augment.New(augment.MoCoV2, 24)
	if err != nil {
		t.Fatal(err)
	}
	const steps, groups = 4, 3
	want := map[string]uint64{}
	for _, path := range []string{dir, tars} {
		set, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, workers := range []int{1, 2, 7} {
			for _, replicas := range []int{1, 3} {
				for rank := range replicas {
					var mine []int
					for g := rank; g < groups; g += replicas {
						mine = append(mine, g)
					}
					l := NewLoader(set.Train, rec, LoaderConfig{Seed: 5, Workers: workers, BesideEngine: rank > 0})
					order := sampler.New(set.Train.Len(), 5)
					for step := int64(1); step <= steps; step++ {
						if err := l.Submit(stepRequest(order, step, mine...)); err != nil {
							t.Fatal(err)
						}
					}
					for step := 1; step <= steps; step++ {
						b, _, err := l.Next(t.Context())
						if err != nil {
							t.Fatal(err)
						}
						for i, g := range mine {
							for kind, views := range map[string][]float32{"query": b.Query[i], "key": b.Key[i]} {
								id, hash := fmt.Sprintf("step %d group %d %s", step, g, kind), hashViews(views)
								if old, known := want[id]; known && old != hash {
									t.Errorf("%s: %d workers, replica %d of %d: %s differs", path, workers, rank, replicas, id)
								}
								want[id] = hash
							}
						}
						b.Release()
					}
					l.Close()
				}
			}
		}
	}
	if len(want) != steps*groups*2 {
		t.Errorf("%d groups were compared", len(want))
	}
}

// A consumer that never comes: the loader fills its window and stops, with no
// more buffers than the window's.
func TestMemoryIsBoundedWithASlowConsumer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := recipe(t, augment.CIFAR)
		set := &fakeSet{n: 1000}
		l := NewLoader(set, rec, LoaderConfig{Workers: 7, Depth: 3})
		defer l.Close()
		order := sampler.New(set.n, 1)
		for step := int64(1); step <= 500; step++ {
			if err := l.Submit(stepRequest(order, step, 0, 1, 2)); err != nil {
				t.Fatal(err)
			}
		}
		batches := func() (n int) {
			l.mu.Lock()
			defer l.mu.Unlock()
			for _, j := range l.jobs {
				if j.batch != nil {
					n++
				}
			}
			return n
		}
		for taken := range 20 {
			synctest.Wait()
			if n, decoded := batches(), set.decodes.Load(); n != 3 || decoded != int64(12*(3+taken)) {
				t.Fatalf("%d batches in memory and %d images decoded after %d were taken", n, decoded, taken)
			}
			b, _, err := l.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			b.Release()
		}
		synctest.Wait() // the window's next batch takes its buffers from those just released
		l.mu.Lock()
		free := 0
		for _, list := range l.free {
			free += len(list)
		}
		l.mu.Unlock()
		if free > 6 { // one batch's
			t.Errorf("%d free buffers", free)
		}
	})
}

// While nobody waits, a sharing loader uses one worker of many.
func TestOneWorkerWhileNobodyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := &fakeSet{n: 100, gate: make(chan struct{})}
		l := NewLoader(set, recipe(t, augment.None), LoaderConfig{Workers: 7, BesideEngine: true})
		defer l.Close()
		defer close(set.gate)
		if err := l.Submit(Request{Query: [][]Ref{of(0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)}}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := set.decodes.Load(); n != 1 {
			t.Errorf("%d images at a time while nobody waits, want 1", n)
		}
		waiting := make(chan error)
		go func() {
			_, _, err := l.Next(t.Context())
			waiting <- err
		}()
		synctest.Wait()
		if n := set.decodes.Load(); n != 7 {
			t.Errorf("%d images at a time while the engine waits, want 7", n)
		}
		for range 12 {
			set.gate <- struct{}{}
		}
		if err := <-waiting; err != nil {
			t.Error(err)
		}
	})
}
