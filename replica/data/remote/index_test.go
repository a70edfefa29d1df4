package remote

import (
	"bytes"
	"crypto/sha256"
	"reflect"
	"strings"
	"testing"

	"mochi/replica/data/naming"
	"mochi/replica/data/shards"
)

func someIndex(name string) (*shards.Shard, [][sha256.Size]byte) {
	return &shards.Shard{
		Size: 5000, Samples: []shards.Sample{{Name: name, Key: "a", Offset: 512, Size: 17, Class: "3"}},
		Names: map[string]string{"3": "cat"}, Members: 3, Read: 1, Left: []shards.Left{{Name: "b.txt", Why: naming.Text}}, Odd: []string{"c.json"},
	}, [][sha256.Size]byte{{1}, {2}}
}

// What is kept of an index is what was written, or it is not kept: of another program,
// another size, other blocks, or with names that JSON cannot hold.
func TestIndexKept(t *testing.T) {
	shard, sums := someIndex("a/ü.jpg")
	content, err := encodeIndex(shard, sums, "b1", 4096)
	if err != nil {
		t.Fatal(err)
	}
	back, s, err := decodeIndex(content, "b1", 5000, 4096)
	if err != nil || !reflect.DeepEqual(back, shard) || !reflect.DeepEqual(s, sums) {
		t.Errorf("%+v, %v", back, err)
	}
	for name, wrong := range map[string]func() error{
		"build":  func() error { _, _, err := decodeIndex(content, "b2", 5000, 4096); return err },
		"size":   func() error { _, _, err := decodeIndex(content, "b1", 5001, 4096); return err },
		"blocks": func() error { _, _, err := decodeIndex(content, "b1", 5000, 2048); return err },
		"cut":    func() error { _, _, err := decodeIndex(content[:len(content)-9], "b1", 5000, 4096); return err },
		"outside": func() error {
			_, _, err := decodeIndex(bytes.Replace(content, []byte("512"), []byte("5120"), 1), "b1", 5000, 4096)
			return err
		},
		"digest": func() error {
			_, _, err := decodeIndex(bytes.Replace(content, []byte(`"0100`), []byte(`"01xx`), 1), "b1", 5000, 4096)
			return err
		},
	} {
		if wrong() == nil {
			t.Errorf("another %s is taken", name)
		}
	}
	latin, sums := someIndex("a/\xfc.jpg")
	if _, err := encodeIndex(latin, sums, "b1", 4096); err == nil {
		t.Error("a name that is no UTF-8 would come back as another")
	}
}

// FuzzIndex: whatever a file of the cache holds, an index is refused, or lies inside its
// shard.
func FuzzIndex(f *testing.F) {
	shard, sums := someIndex("a.jpg")
	content, err := encodeIndex(shard, sums, "b1", 4096)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(content)
	f.Add([]byte(`{"format":1,"build":"b1","sums":["",""],"shard":null}`))
	f.Add([]byte(strings.Replace(string(content), "512", "-1", 1)))
	f.Fuzz(func(t *testing.T, content []byte) {
		shard, sums, err := decodeIndex(content, "b1", 5000, 4096)
		if err != nil {
			return
		}
		if len(sums) != 2 || shard.Size != 5000 || shard.Names == nil {
			t.Errorf("%d digests, %d bytes", len(sums), shard.Size)
		}
		for _, s := range shard.Samples {
			if s.Offset < 0 || s.Size < 0 || s.Offset > 5000 || s.Size > 5000 || s.Packed.Zip {
				t.Errorf("sample %+v", s)
			}
		}
	})
}

// FuzzContentRange: a range is refused, or is one.
func FuzzContentRange(f *testing.F) {
	for _, s := range []string{"bytes 0-0/1", "bytes 5-9/10", "bytes */9", "bytes 1-0/5", "bytes -1-2/5", "bytes 0-9/9", "octets 0-1/2", "bytes 0-18446744073709551615/1", "bytes +0-1/5", "bytes 0-1/*"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		first, last, total, ok := contentRange(s)
		if ok && !(first >= 0 && first <= last && last < total) {
			t.Errorf("%q: %d-%d/%d", s, first, last, total)
		}
	})
}
