package wal_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"mochi/coordinator/wal"
	"mochi/coordinator/wal/waltest"
)

const small = 700 // bytes of a segment: a few records

func record(rng *rand.Rand, index uint64) wal.Record {
	data := make([]byte, rng.IntN(300))
	if rng.IntN(20) == 0 {
		data = make([]byte, 1500) // over several sectors, of zeros too
	}
	if rng.IntN(3) > 0 {
		for i := range data {
			data[i] = byte(rng.IntN(256))
		}
	}
	return wal.Record{Index: index, Kind: byte(rng.IntN(256)), Data: append([]byte(fmt.Sprint(index)), data...)}
}

// held reads the whole log.
func held(t *testing.T, l *wal.Log) []wal.Record {
	t.Helper()
	var all []wal.Record
	if err := l.Range(l.First(), l.Last(), func(r wal.Record) error { all = append(all, r); return nil }); err != nil {
		t.Fatal(err)
	}
	return all
}

func open(t *testing.T, files wal.Files) *wal.Log {
	t.Helper()
	l, err := wal.Open(files, wal.Options{SegmentBytes: small})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestRecordsComeBack(t *testing.T) {
	for name, files := range map[string]wal.Files{"folder": wal.Dir(t.TempDir() + "/state/commits"), "memory": waltest.New(1)} {
		t.Run(name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(1, 1))
			l := open(t, files)
			if l.First() != 1 || l.Last() != 0 {
				t.Fatalf("an empty log: %d to %d", l.First(), l.Last())
			}
			var want []wal.Record
			for len(want) < 50 {
				var batch []wal.Record
				for range 1 + rng.IntN(4) {
					batch = append(batch, record(rng, uint64(len(want)+len(batch)+1)))
				}
				if err := l.Append(batch...); err != nil {
					t.Fatal(err)
				}
				want = append(want, batch...)
			}
			if got := held(t, l); !reflect.DeepEqual(got, want) {
				t.Fatal("not what was appended")
			}
			if err := l.Append(wal.Record{Index: 3}); err == nil {
				t.Fatal("a record in the wrong place")
			}
			if _, err := l.Read(l.Last() + 1); !errors.Is(err, wal.ErrNotFound) {
				t.Fatalf("behind the end: %v", err)
			}
			if err := l.TruncateFront(20); err != nil {
				t.Fatal(err)
			}
			if err := l.TruncateBack(33); err != nil {
				t.Fatal(err)
			}
			want = want[19:33]
			if got := held(t, l); !reflect.DeepEqual(got, want) {
				t.Fatal("not what was kept")
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			if err := l.Append(record(rng, 34)); !errors.Is(err, wal.ErrClosed) {
				t.Fatalf("closed: %v", err)
			}
			l = open(t, files)
			if got := held(t, l); !reflect.DeepEqual(got, want) {
				t.Fatal("not what was kept, opened again")
			}
			if err := l.Reset(100); err != nil {
				t.Fatal(err)
			}
			if err := l.Append(record(rng, 100)); err != nil || l.First() != 100 || l.Last() != 100 {
				t.Fatalf("after Reset: %d to %d, %v", l.First(), l.Last(), err)
			}
			if l = open(t, files); l.First() != 100 || l.Last() != 100 {
				t.Fatalf("after Reset, opened again: %d to %d", l.First(), l.Last())
			}
		})
	}
}

// history drives a log through random operations and knows what it must hold.
type history struct {
	rng   *rand.Rand
	log   *wal.Log
	acked []wal.Record // what must be there
	first uint64

	// Of the operation in hand, should it not return: what may be there as well.
	added  []wal.Record
	ghosts [][]wal.Record // of earlier Appends that failed, with none since that did not
	front  uint64         // First may be as high
	back   uint64         // Last may be as low, at batch or segment ends; 0: no
	reset  uint64
}

func (h *history) last() uint64 { return h.first + uint64(len(h.acked)) - 1 }

// step does one operation.
func (h *history) step() error {
	h.added, h.front, h.back, h.reset = nil, h.first, 0, 0
	n := uint64(len(h.acked))
	switch k := h.rng.IntN(20); {
	case k == 0 && n > 0:
		h.front = h.first + h.rng.Uint64N(n+1)
		if err := h.log.TruncateFront(h.front); err != nil {
			return err
		}
		h.acked, h.first = h.acked[h.front-h.first:], h.front
	case k == 1 && n > 0:
		to := h.last() - h.rng.Uint64N(n+1)
		h.back = max(to, 1)
		if to == 0 {
			h.back = 0
		}
		if err := h.log.TruncateBack(to); err != nil {
			return err
		}
		h.acked = h.acked[:to+1-h.first]
	case k == 2 && h.rng.IntN(5) == 0:
		h.reset = 1 + h.rng.Uint64N(50)
		if err := h.log.Reset(h.reset); err != nil {
			return err
		}
		h.acked, h.first = nil, h.reset
	default:
		for range 1 + h.rng.IntN(3) {
			h.added = append(h.added, record(h.rng, h.last()+1+uint64(len(h.added))))
		}
		if err := h.log.Append(h.added...); err != nil {
			return err
		}
		h.acked, h.ghosts = append(h.acked, h.added...), nil
	}
	h.added, h.front, h.back, h.reset = nil, h.first, 0, 0
	return nil
}

// check compares what a log holds with what it may hold.
func (h *history) check(t *testing.T, truncating bool) {
	t.Helper()
	got, first := held(t, h.log), h.log.First()
	if h.reset > 0 && first == h.reset && len(got) == 0 {
		h.acked, h.first = nil, first
		return
	}
	if first != h.first && first != h.front {
		t.Fatalf("the log begins at %d, not at %d", first, h.first)
	}
	whole := append(slices.Clone(h.acked), h.added...)[first-h.first:]
	may := []int{len(whole), len(whole) - len(h.added)}
	for _, g := range h.ghosts {
		other := append(slices.Clone(h.acked), g...)[first-h.first:]
		if g[0].Index == h.last()+1 && len(got) == len(other) && reflect.DeepEqual(got, other) {
			whole, may = other, []int{len(other)}
			break
		}
	}
	if truncating && h.back < h.last() {
		for n := int(h.back) - int(first) + 1; n < len(whole); n++ {
			may = append(may, max(n, 0))
		}
	}
	if !slices.Contains(may, len(got)) || len(got) > 0 && !reflect.DeepEqual(got, whole[:len(got)]) {
		t.Fatalf("the log holds %d records from %d on; %v were possible, of %d acknowledged (%d ghosts, %d added, back %d, front %d)", len(got), first, may, len(h.acked), len(h.ghosts), len(h.added), h.back, h.front)
	}
	h.acked, h.first, h.ghosts = got, first, nil
}

// TestCrashAtEveryPoint stops the machine at each call of random histories, and
// goes on with what the crash left.
func TestCrashAtEveryPoint(t *testing.T) {
	seeds := uint64(12)
	if testing.Short() {
		seeds = 3
	}
	for seed := range seeds {
		for at := 1; ; at++ {
			disk := waltest.New(seed*10000 + uint64(at))
			ops := 0
			disk.Before = func(waltest.Op) error {
				if ops++; ops == at {
					return waltest.ErrCrashed
				}
				return nil
			}
			h := &history{rng: rand.New(rand.NewPCG(seed, 7)), first: 1}
			var err error
			h.log, err = wal.Open(disk, wal.Options{SegmentBytes: small})
			for i := 0; err == nil && i < 40; i++ {
				err = h.step()
			}
			if err == nil {
				break // at is behind the last call
			}
			if !errors.Is(err, waltest.ErrCrashed) {
				t.Fatalf("seed %d, call %d: %v", seed, at, err)
			}
			truncating := h.back > 0 || h.added == nil
			disk.Crash()
			if h.log, err = wal.Open(disk, wal.Options{SegmentBytes: small}); err != nil {
				t.Fatalf("seed %d, call %d: after the crash: %v", seed, at, err)
			}
			h.check(t, truncating)
			for range 5 { // and it goes on
				if err := h.step(); err != nil {
					t.Fatalf("seed %d, call %d: going on: %v", seed, at, err)
				}
			}
			h.log = open(t, disk)
			h.check(t, false)
		}
	}
}

// TestErrorsDoNotStick lets calls fail at random, and crashes now and then: what was
// acknowledged stays, and once the disk is well the log goes on.
func TestErrorsDoNotStick(t *testing.T) {
	for seed := range uint64(60) {
		disk := waltest.New(seed)
		rng := rand.New(rand.NewPCG(seed, 3))
		h := &history{rng: rand.New(rand.NewPCG(seed, 8)), first: 1, log: open(t, disk)}
		sick := false
		disk.Before = func(waltest.Op) error {
			if sick && rng.IntN(4) == 0 {
				return syscall.EIO
			}
			return nil
		}
		for range 60 {
			sick = true
			var err error
			for range 1 + rng.IntN(4) { // tried again, as by a caller that waits
				if err = h.step(); err != nil {
					break
				}
			}
			sick = false
			if err == nil {
				continue
			}
			if rng.IntN(3) > 0 && h.added != nil { // the same process goes on: nothing was appended
				if got := held(t, h.log); len(got) != len(h.acked) {
					t.Fatalf("seed %d: %d records, %d acknowledged", seed, len(got), len(h.acked))
				}
				h.ghosts, h.added = append(h.ghosts, h.added), nil
				continue
			}
			truncating := h.added == nil
			if rng.IntN(2) == 0 {
				disk.Crash()
			}
			h.log = open(t, disk)
			h.check(t, truncating)
			h.added, h.front, h.back, h.reset = nil, h.first, 0, 0
			if rng.IntN(2) == 0 { // what was seen once, stays
				disk.Crash()
				h.log = open(t, disk)
				h.check(t, false)
			}
		}
		disk.Crash()
		h.log = open(t, disk)
		h.check(t, false)
	}
}

func TestFullDisk(t *testing.T) {
	disk := waltest.New(1)
	disk.Room = 4000
	l := open(t, disk)
	rng := rand.New(rand.NewPCG(5, 5))
	var err error
	for err == nil {
		err = l.Append(record(rng, l.Last()+1))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	last := l.Last()
	disk.Room = 0
	for range 10 {
		if err := l.Append(record(rng, l.Last()+1)); err != nil {
			t.Fatal(err)
		}
	}
	disk.Crash()
	if l = open(t, disk); l.Last() != last+10 {
		t.Fatalf("%d records, want %d", l.Last(), last+10)
	}
}

// filled is a log of several segments.
func filled(t *testing.T, disk *waltest.Disk) (records []wal.Record) {
	t.Helper()
	l := open(t, disk)
	rng := rand.New(rand.NewPCG(9, 9))
	for l.Last() < 18 {
		var batch []wal.Record
		for range 1 + rng.IntN(3) {
			batch = append(batch, record(rng, l.Last()+1+uint64(len(batch))))
		}
		if err := l.Append(batch...); err != nil {
			t.Fatal(err)
		}
		records = append(records, batch...)
	}
	return records
}

// TestEveryFlippedBitIsNamed flips bits in every byte of every file: Open says which
// record is damaged, and Salvage gives all the others.
func TestEveryFlippedBitIsNamed(t *testing.T) {
	disk := waltest.New(1)
	records := filled(t, disk)
	names, _ := disk.List()
	for _, name := range names {
		good := disk.Content(name)
		for at := range good {
			bad := slices.Clone(good)
			bad[at] ^= 1 << (at % 8)
			disk.Put(name, bad)
			_, err := wal.Open(disk, wal.Options{SegmentBytes: small})
			var damaged *wal.DamageError
			if !errors.As(err, &damaged) || damaged.Damages[0].File != name {
				t.Fatalf("byte %d of %s: %v", at, name, err)
			}
			lost := map[uint64]bool{}
			if name != "list" && at >= 32 {
				d := damaged.Damages[0]
				if len(damaged.Damages) != 1 || d.To != 0 && d.From != d.To || d.Offset > int64(at) {
					t.Fatalf("byte %d of %s: %v", at, name, err)
				}
				lost[d.From] = true
				if !strings.Contains(err.Error(), fmt.Sprintf("%d", d.From)) {
					t.Fatalf("%v does not name record %d", err, d.From)
				}
			}
			var want, got []wal.Record
			for _, r := range records {
				if !lost[r.Index] {
					want = append(want, r)
				}
			}
			if _, err := wal.Salvage(disk, func(r wal.Record) error { got = append(got, r); return nil }); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("byte %d of %s: %d records saved, want %d", at, name, len(got), len(want))
			}
		}
		disk.Put(name, good)
	}
}

// TestMissingFiles removes each file, and cuts each one at each place: a log that
// opens holds a beginning of what was appended, by whole batches, and only what is cut
// off the last segment goes unseen.
func TestMissingFiles(t *testing.T) {
	disk := waltest.New(1)
	records := filled(t, disk)
	names, _ := disk.List()
	lastSegment := names[len(names)-2] // the list sorts last
	for _, name := range names {
		good := disk.Content(name)
		for size := -1; size < len(good); size++ {
			disk.Put(name, nil)
			if size >= 0 {
				disk.Put(name, good[:size])
			}
			l, err := wal.Open(disk, wal.Options{SegmentBytes: small})
			var damaged *wal.DamageError
			switch {
			case err == nil && name == lastSegment && size >= 32:
				if got := held(t, l); len(got) >= len(records) || !reflect.DeepEqual(got, records[:len(got)]) {
					t.Fatalf("%s cut to %d: %d records", name, size, len(got))
				}
			case !errors.As(err, &damaged):
				t.Fatalf("%s cut to %d: %v", name, size, err)
			}
			disk.Put(name, good)
		}
	}
}

// TestReadersDoNotWait hangs the disk within an append.
func TestReadersDoNotWait(t *testing.T) {
	disk := waltest.New(1)
	l := open(t, disk)
	rng := rand.New(rand.NewPCG(1, 1))
	if err := l.Append(record(rng, 1)); err != nil {
		t.Fatal(err)
	}
	hangs, goOn := make(chan struct{}), make(chan struct{})
	disk.Before = func(op waltest.Op) error {
		if op.Call == "sync" {
			close(hangs)
			<-goOn
		}
		return nil
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := l.Append(record(rng, 2)); err != nil {
			t.Error(err)
		}
	})
	<-hangs
	if _, err := l.Read(1); err != nil || l.Last() != 1 {
		t.Errorf("while the disk hangs: %d, %v", l.Last(), err)
	}
	close(goOn)
	wg.Wait()
	if l.Last() != 2 {
		t.Errorf("%d records", l.Last())
	}
}

func FuzzOpen(f *testing.F) {
	disk := waltest.New(1)
	l, err := wal.Open(disk, wal.Options{SegmentBytes: small})
	if err != nil {
		f.Fatal(err)
	}
	for i := range uint64(3) {
		if err := l.Append(wal.Record{Index: 2*i + 1, Data: []byte("a")}, wal.Record{Index: 2*i + 2, Kind: 1, Data: []byte("bc")}); err != nil {
			f.Fatal(err)
		}
	}
	const segment = "00000000000000000001.wal"
	f.Add(disk.Content("list"), disk.Content(segment))
	f.Add(disk.Content("list"), disk.Content(segment)[:200])
	f.Add([]byte{}, []byte("mochiwal"))
	f.Fuzz(func(t *testing.T, list, content []byte) {
		disk := waltest.New(1)
		disk.Put("list", list)
		disk.Put(segment, content)
		var salvaged []wal.Record
		damages, err := wal.Salvage(disk, func(r wal.Record) error { salvaged = append(salvaged, r); return nil })
		if err != nil {
			t.Fatal(err)
		}
		l, err := wal.Open(disk, wal.Options{SegmentBytes: small})
		if (err == nil) != (len(damages) == 0) {
			t.Fatalf("damages %v, opened with %v", damages, err)
		}
		if err != nil {
			return
		}
		got := held(t, l)
		if len(got) != len(salvaged) || len(got) > 0 && !reflect.DeepEqual(got, salvaged) {
			t.Fatalf("opened with %d records, saved %d", len(got), len(salvaged))
		}
		last := l.Last()
		if err := l.Append(wal.Record{Index: last + 1, Data: []byte("next")}); err != nil {
			t.Fatal(err)
		}
		if l = open(t, disk); l.Last() != last+1 {
			t.Fatalf("%d records after %d", l.Last(), last)
		}
	})
}
