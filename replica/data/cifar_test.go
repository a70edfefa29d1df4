package data

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestCIFAR10(t *testing.T) {
	for _, below := range []string{"", "cifar-10-batches-bin"} {
		dir := t.TempDir()
		at := filepath.Join(dir, below)
		write(t, filepath.Join(at, "data_batch_1.bin"), cifarRecords(1, 3, 9))
		write(t, filepath.Join(at, "data_batch_3.bin"), cifarRecords(1, 0))
		write(t, filepath.Join(at, "test_batch.bin"), cifarRecords(1, 5))
		write(t, filepath.Join(at, "batches.meta.txt"), []byte("airplane\n"))
		set, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		if set.Kind != "cifar" || set.Info.Train != 3 || set.Info.Classes != 10 || set.Test.Len() != 1 {
			t.Errorf("got %+v", set)
		}
		if !strings.Contains(set.Announce, "CIFAR-10 ") || !strings.Contains(set.Announce, "data_batch_5.bin") {
			t.Errorf("announced as %q, want the missing files too", set.Announce)
		}
		for i, want := range []int32{3, 9, 0} {
			if set.Train.Label(i) != want {
				t.Errorf("label %d is %d, want %d", i, set.Train.Label(i), want)
			}
		}
		if a, b := set.Train.Path(1), set.Train.Path(2); !strings.HasSuffix(a, "data_batch_1.bin record 1") || !strings.HasSuffix(b, "data_batch_3.bin record 0") {
			t.Errorf("paths %q, %q", a, b)
		}
		img, err := set.Train.Decode(1, NewDecoder())
		if err != nil {
			t.Fatal(err)
		}
		records := cifarRecords(1, 3, 9)
		for _, pixel := range []int{0, 1, 33, 1023} {
			for c := range 3 {
				if got, want := img.Pix[pixel*3+c], records[3073+1+c*cifarPlane+pixel]; got != want {
					t.Errorf("pixel %d channel %d is %d, want %d", pixel, c, got, want)
				}
			}
		}
	}
}

func TestCIFAR100TakesTheFineLabel(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "train.bin"), cifarRecords(2, 4, 99, 1, 7))
	set, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if set.Train.Len() != 2 || set.Train.Label(0) != 99 || set.Train.Label(1) != 7 || set.Info.Classes != 100 || set.Test != nil {
		t.Errorf("got %+v with labels %d, %d", set, set.Train.Label(0), set.Train.Label(1))
	}
}

func TestCIFARNamesTheFault(t *testing.T) {
	for name, c := range map[string]struct {
		file    string
		content []byte
		want    string
	}{
		"cut short":     {"data_batch_1.bin", cifarRecords(1, 3, 9)[:5000], "cut short"},
		"empty":         {"data_batch_1.bin", []byte{}, "cut short"},
		"label":         {"data_batch_1.bin", cifarRecords(1, 3, 10), "record 1 has label 10"},
		"of other kind": {"train.bin", cifarRecords(1, 3, 9), "not a whole number of CIFAR-100"},
		"test split":    {"test_batch.bin", cifarRecords(1, 3)[:100], "cut short"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if name == "test split" {
				write(t, filepath.Join(dir, "data_batch_1.bin"), cifarRecords(1, 3))
			}
			write(t, filepath.Join(dir, c.file), c.content)
			_, err := Open(dir)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.file) {
				t.Errorf("got %v, want the file and %q", err, c.want)
			}
		})
	}
}

// What check accepts can be read to the last record.
func FuzzCIFAR(f *testing.F) {
	f.Add(cifarRecords(1, 3, 9))
	f.Add(cifarRecords(2, 3, 99))
	f.Add(cifarRecords(1, 200)[:3000])
	f.Fuzz(func(t *testing.T, content []byte) {
		d := NewDecoder()
		for _, format := range []cifarFormat{{name: "CIFAR-10", labels: 1, classes: 10}, {name: "CIFAR-100", labels: 2, classes: 100}} {
			if format.check(content) != nil {
				continue
			}
			s := &cifarSplit{format: format, files: []string{"f"}, first: []int{0}, records: content}
			for i := range s.Len() {
				if l := s.Label(i); l < 0 || int(l) >= format.classes {
					t.Fatalf("label %d", l)
				}
				img, err := s.Decode(i, d)
				if err != nil {
					t.Fatal(err)
				}
				record := content[i*format.record()+format.labels:]
				if img.Pix[0] != record[0] || img.Pix[len(img.Pix)-1] != record[3*cifarPlane-1] {
					t.Fatalf("record %d is not what was read", i)
				}
			}
		}
	})
}
