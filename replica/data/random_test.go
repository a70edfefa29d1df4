package data_test

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/text/unicode/norm"

	"mochi/replica/data"
	"mochi/replica/data/datatest"
)

// sampled is what a split holds: path and content → class.
func sampled(t *testing.T, d data.Dataset) map[string]string {
	t.Helper()
	got := make(map[string]string)
	if d == nil {
		return got
	}
	decoder := data.NewDecoder()
	for i := range d.Len() {
		files, at, ok := data.File(d, i)
		if !ok {
			t.Fatalf("%s is no file", d.Path(i))
		}
		content, err := files.Content(at, decoder)
		if err != nil {
			t.Fatal(err)
		}
		class := ""
		if l := d.Label(i); l >= 0 {
			class = d.(interface{ ClassName(int) string }).ClassName(int(l))
		}
		got[norm.NFC.String(d.Path(i))+"\x00"+string(content)] = class
	}
	return got
}

// Whatever people's data are, the samples and their classes are those that are meant,
// and every file is accounted for: of random data sets of all kinds, one or several
// together, whose truth is known.
func TestRandomData(t *testing.T) {
	base := t.TempDir()
	datatest.Each(t, base, 100, func(w datatest.World, _ string) {
		set, err := data.OpenAll(w.Sources, data.Options{MaxPixels: 100, MaxBytes: 1 << 20, CountAll: true, Unpack: filepath.Join(base, "unpacked")})
		if err != nil {
			t.Fatalf("%v\n%s", err, w.Told)
		}
		for _, split := range []struct {
			name  string
			d     data.Dataset
			truth []datatest.Sample
		}{{"train", set.Train, w.Train}, {"test", set.Test, w.Test}} {
			want := make(map[string]string)
			for _, s := range split.truth {
				want[s.Path+"\x00"+s.Content] = s.Class
			}
			if got := sampled(t, split.d); !maps.Equal(got, want) {
				t.Errorf("the %s split has %d samples of %v, want %d of %v\n%s", split.name, len(got), slices.Sorted(maps.Values(got)), len(want), slices.Sorted(maps.Values(want)), set.Announce)
			}
		}
		a := set.Account
		left := 0
		for _, l := range a.Left {
			left += l.Files
		}
		if a.Found != w.Found || a.Train != len(w.Train) || a.Test != len(w.Test) || a.Read != w.Read || left != w.Left || a.Unruled() != 0 || a.Train+a.Test+a.Read+a.Faults+left != a.Found {
			t.Errorf("%s; want %d found, %d, %d, %d with labels, %d left out\n%s", a.Sum(), w.Found, len(w.Train), len(w.Test), w.Read, w.Left, strings.Join(set.Verdict(0, 0), "\n"))
		}
	})
}
