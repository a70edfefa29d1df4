package data

import (
	"bytes"
	"encoding/binary"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// pickledCIFAR is a batch as Python 2 wrote those of the University of Toronto: a
// NumPy array of bytes in protocol 2, and strings for keys.
func pickledCIFAR(planes []byte, labels ...[]uint8) []byte {
	text := func(s string) string { return "U" + string(rune(len(s))) + s }
	b := []byte("\x80\x02}(" + text("batch_label") + text("training batch 1 of 5"))
	for i, list := range labels {
		name := "labels"
		if len(labels) == 2 {
			name = []string{"coarse_labels", "fine_labels"}[i]
		}
		b = append(b, text(name)+"]("...)
		for _, l := range list {
			b = append(b, 'K', l)
		}
		b = append(b, 'e')
	}
	b = append(b, text("data")+"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01M"...)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(planes)/3072))
	b = append(b, "M\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(planes)))
	return append(append(b, planes...), "tbu."...)
}

// The pickled version is the binary one, to the digest of the data.
func TestPickledCIFAR(t *testing.T) {
	planes := slices.Concat(ramp(3072, 1), ramp(3072, 2), ramp(3072, 3))
	one := func(labels ...uint8) []byte {
		var b []byte
		for i := range 3 {
			b = append(b, labels[i*len(labels)/3:(i+1)*len(labels)/3]...)
			b = append(b, planes[i*3072:(i+1)*3072]...)
		}
		return b
	}
	for name, c := range map[string]struct{ files, pickled map[string][]byte }{
		"CIFAR-10": {map[string][]byte{"data_batch_1.bin": one(3, 0, 9), "test_batch.bin": one(1, 1, 2)},
			map[string][]byte{"data_batch_1": pickledCIFAR(planes, []uint8{3, 0, 9}), "test_batch": pickledCIFAR(planes, []uint8{1, 1, 2}), "batches.meta": []byte("\x80\x02}.")}},
		"CIFAR-100": {map[string][]byte{"train.bin": one(1, 99, 2, 0, 3, 50), "test.bin": one(0, 7, 0, 8, 0, 9)},
			map[string][]byte{"cifar-100-python/train": pickledCIFAR(planes, []uint8{1, 2, 3}, []uint8{99, 0, 50}), "cifar-100-python/test": pickledCIFAR(planes, []uint8{0, 0, 0}, []uint8{7, 8, 9})}},
	} {
		var sets []*Set
		for _, files := range []map[string][]byte{c.files, c.pickled} {
			dir := t.TempDir()
			for file, content := range files {
				write(t, filepath.Join(dir, file), content)
			}
			set, err := Open(dir)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			sets = append(sets, set)
		}
		a, b := sets[0], sets[1]
		if a.Info != b.Info || !slices.Equal(labelsOf(a.Test), labelsOf(b.Test)) || !strings.Contains(b.Announce, name+" pickled files") {
			t.Errorf("%s: %+v becomes %+v\n%s", name, a.Info, b.Info, b.Announce)
		}
	}
	for want, content := range map[string][]byte{
		"not a whole number of images": pickledCIFAR(planes[:3000], []uint8{1}), "want a list of 3 integers": pickledCIFAR(planes, []uint8{1, 2}),
		"label 10": pickledCIFAR(planes, []uint8{1, 2, 10}), "run code": []byte("\x80\x02cos\nsystem\nU\x02ls\x85R."), "is no batch": []byte("\x80\x02]."), "cut short": pickledCIFAR(planes, []uint8{1, 2, 3})[:500],
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "data_batch_1")
		write(t, path, content)
		if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// FuzzPickledCIFAR: whatever a pickle holds, reading it ends, within its limits, and
// gives whole records.
func FuzzPickledCIFAR(f *testing.F) {
	f.Add(pickledCIFAR(ramp(3072, 1), []uint8{3}))
	f.Add(pickledCIFAR(ramp(6144, 1), []uint8{3, 4}, []uint8{70, 9}))
	f.Add([]byte("\x80\x04}\x94(C\x04data\x94C\x02abC\x06labels]K\x01au."))
	f.Fuzz(func(t *testing.T, content []byte) {
		for _, format := range cifarFormats() {
			records, err := format.pickled().unpickle(bytes.NewReader(content))
			if err == nil && (len(records) == 0 || len(records)%format.record() != 0) {
				t.Fatalf("%d bytes of records of %d", len(records), format.record())
			}
		}
	})
}
