package evaluate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"mochi/coordinator/protocol/config"
	"mochi/model/engine"
	"mochi/model/eval"
	"mochi/replica/augment"
	"mochi/replica/data"
)

// shades is a data set of single-coloured images, some of which cannot be decoded.
type shades struct {
	n, size int
	bad     map[int]bool
	fatal   error // of image 7
}

func (s shades) Len() int          { return s.n }
func (s shades) Classes() int      { return 2 }
func (s shades) Label(i int) int32 { return int32(i % 2) }
func (s shades) Path(i int) string { return fmt.Sprint("image ", i) }
func (s shades) Decode(i int, d *data.Decoder) (*augment.Image, error) {
	if s.bad[i] {
		return nil, &data.CorruptError{Path: s.Path(i), Err: errors.New("bad")}
	}
	if s.fatal != nil && i == 7 {
		return nil, s.fatal
	}
	img := d.Image(s.size, s.size)
	for j := range img.Pix {
		img.Pix[j] = uint8(i*(j%7) + i)
	}
	return img, nil
}

// encoders are random ones.
func encoders(t *testing.T) *Encoders {
	t.Helper()
	cfg := config.Default()
	cfg.Arch, cfg.ImageSize, cfg.Dim, cfg.Queue = "resnet8", 12, 16, 64
	net, err := cfg.Network()
	if err != nil {
		t.Fatal(err)
	}
	enc, err := OpenEncoders("gorgonia", engine.Config{Precision: engine.FP32, Threads: 2}, net, InitialState(cfg, net))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(enc.Close)
	return enc
}

// What cannot be decoded is left out; the features of the others are those they
// have alone.
func TestExtractLeavesOut(t *testing.T) {
	x, err := encoders(t).extractor(engine.Query, eval.Backbone, eval.Embedding)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	whole := shades{n: evalBatch + 7, size: 12}
	holes := whole
	holes.bad = map[int]bool{0: true, 3: true, evalBatch: true, evalBatch + 6: true}
	want, err := x.collect(t.Context(), all(whole, 0), plain(12), watch{}, true)
	if err != nil {
		t.Fatal(err)
	}
	told := 0
	got, err := x.collect(t.Context(), all(data.NewLenient(holes, nil), 0), plain(12), watch{corrupt: func(*data.CorruptError) { told++ }}, true)
	if err != nil {
		t.Fatal(err)
	}
	if told != 4 || got.leftOut != 4 || len(got.samples) != whole.n-4 {
		t.Fatalf("%d told, %d left out, %d kept", told, got.leftOut, len(got.samples))
	}
	for row, sample := range got.samples {
		if holes.bad[sample] || got.labels[row] != whole.Label(sample) || got.hashes[row] != want.hashes[sample] {
			t.Fatalf("row %d is sample %d, label %d", row, sample, got.labels[row])
		}
		for f, length := range x.lengths {
			if !slices.Equal(got.features[f][row*length:(row+1)*length], want.features[f][sample*length:(sample+1)*length]) {
				t.Fatalf("sample %d has another feature %s beside images that are left out", sample, x.features[f])
			}
		}
	}
}

func TestExtractEnds(t *testing.T) {
	x, err := encoders(t).extractor(engine.Query, eval.Backbone)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	s := shades{n: 3 * evalBatch, size: 12, fatal: errors.New("no more files")}
	if _, err := x.collect(t.Context(), all(s, 0), plain(12), watch{}, true); !errors.Is(err, s.fatal) {
		t.Errorf("a fault that is none of an image's: %v", err)
	}
	strict := data.NewLenient(shades{n: 5, size: 12, bad: map[int]bool{2: true}}, nil)
	strict.SetStrict()
	if _, err := x.collect(t.Context(), all(strict, 0), plain(12), watch{}, true); err == nil || !strings.Contains(err.Error(), "image 2: bad (--strict-data)") {
		t.Errorf("strict data: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s.fatal = nil
	err = x.run(ctx, all(s, 0), plain(12), watch{}, func(rows) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestPerClassIsSeeded(t *testing.T) {
	s := all(shades{n: 40, size: 12}, 0)
	a, b, c := s.perClass(5, 1), s.perClass(5, 1), s.perClass(5, 2)
	if len(a.at) != 10 || !slices.Equal(a.at, b.at) || slices.Equal(a.at, c.at) || !slices.IsSorted(a.at) {
		t.Errorf("%v, %v, %v", a.at, b.at, c.at)
	}
	if n := len(s.perClass(100, 1).at); n != 40 {
		t.Errorf("all there are: %d", n)
	}
}
