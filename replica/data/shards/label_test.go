package shards

import (
	"archive/tar"
	"bytes"
	"fmt"
	"strings"
	"testing"

	"mochi/replica/data/naming"
)

func TestClass(t *testing.T) {
	for text, want := range map[string]string{
		"7": "7", " 7\n": "7", "007": "7", "7.0": "7", "+7": "7", "7e0": "7", "\ufeff7": "7", "7\x00": "7", "-1": "", "-1.0": "", "": "", " \r\n": "",
		"7.5": "7.5", "cat": "cat", "a b ": "a b", "n01440764": "n01440764", "1_000": "1_000", "0x10": "0x10", "inf": "inf", "NaN": "NaN", "123456789": "123456789",
	} {
		if got := Class(text); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}

func TestClassOfJSON(t *testing.T) {
	for text, want := range map[string]label{
		`{"label": 3}`: {class: "3"}, `{"cls": 3.0}`: {class: "3"}, `{"label": [3]}`: {class: "3"}, `{"label": "3"}`: {class: "3", count: "3"}, `{"label": true}`: {class: "1"},
		`{"label": -1}`: {}, `{"label": null}`: {}, `{"label": "-1"}`: {count: "-1"}, `{"file": "x"}`: {}, `{"label": [1, 2]}`: {odd: true}, `{"label": {"a": 1}}`: {odd: true}, `{"label": 1.5}`: {odd: true},
		`{"label": 3, "class_name": "cat"}`: {class: "3", name: "cat"}, `{"label": "cat"}`: {class: "cat", name: "cat"}, `{"class_id": 2, "label": "cat"}`: {class: "2", name: "cat"},
		"\ufeff" + `{"label": 3}`: {class: "3"}, `[1]`: {odd: true}, `{`: {odd: true}, ``: {odd: true},
	} {
		if got := classOf([]byte(text)); *got != want {
			t.Errorf("%s: %+v, want %+v", text, *got, want)
		}
	}
}

// archiveOf is a tar file of members "name" or "name>target", contents their names.
func archiveOf(t *testing.T, members ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		name, target, link := strings.Cut(m, ">")
		h := tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(name))}
		if link {
			h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, target, 0
			if hard, is := strings.CutPrefix(target, "="); is {
				h.Typeflag, h.Linkname = tar.TypeLink, hard
			}
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if !link {
			if _, err := w.Write([]byte(name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// names are the samples of a shard, and what is left out with its reason.
func names(s *Shard) (samples, left string) {
	for _, sample := range s.Samples {
		samples += sample.Name + ":" + sample.Class + " "
	}
	for _, l := range s.Left {
		left += l.Name + " "
	}
	return strings.TrimSpace(samples), strings.TrimSpace(left)
}

func TestWhichMembersAreSamples(t *testing.T) {
	for name, c := range map[string]struct {
		members       []string
		samples, left string
	}{
		"links":                     {[]string{"a/1.jpg", "b/1.jpg>=a/1.jpg", "c/1.jpg>../b/1.jpg", "d.jpg>e.jpg", "e.jpg>d.jpg", "f.jpg>/a/1.jpg"}, "a/1.jpg: b/1.jpg: c/1.jpg: f.jpg:", "d.jpg e.jpg"},
		"a mask":                    {[]string{"1.jpg", "1.seg.png", "1.cls"}, "1.jpg:1.cls", "1.seg.png"},
		"masks first":               {[]string{"1.seg.png", "1.depth.png", "1.image.jpg"}, "1.image.jpg:", "1.depth.png 1.seg.png"},
		"two of one sample":         {[]string{"1.png", "1.jpg", "1.cls"}, "1.jpg:1.cls", "1.png"},
		"two of one sample, dotted": {[]string{"1.right.jpg", "1.left.jpg", "1.cls"}, "1.right.jpg:1.cls", "1.left.jpg"},
		"plain before dotted":       {[]string{"1.left.jpg", "1.jpg"}, "1.jpg:", "1.left.jpg"},
		"dots in names":             {[]string{"a.1.jpg", "a.1.cls", "a.2.jpg", "a.2.json", "a.3.jpg"}, "a.1.jpg:a.1.cls a.2.jpg: a.3.jpg:", ""},
		"hidden, and a system's":    {[]string{"1.jpg", "._1.jpg", "@eaDir/1.jpg", "__key__.jpg", ".d/1.jpg"}, "1.jpg:", "._1.jpg .d/1.jpg @eaDir/1.jpg __key__.jpg"},
		"twice":                     {[]string{"1.jpg", "1.jpg"}, "1.jpg:", "1.jpg"},
	} {
		b := archiveOf(t, c.members...)
		s := Scan(bytes.NewReader(b), int64(len(b)))
		samples, left := names(s)
		if samples != c.samples || left != c.left || s.Fault != nil || len(s.Samples)+len(s.Left)+s.Read != s.Members || s.Members != len(c.members) {
			t.Errorf("%s: samples %q, left out %q, %d read of %d, %v", name, samples, left, s.Read, s.Members, s.Fault)
		}
		for _, sample := range s.Samples { // what the place holds is the name of what it leads to
			if got := string(b[sample.Offset:][:sample.Size]); !strings.HasSuffix(got, ".jpg") {
				t.Errorf("%s: %s leads to %q", name, sample.Name, got)
			}
		}
	}
}

// What stands behind the end mark is another archive, or a fault with its byte.
func TestBehindTheEndMark(t *testing.T) {
	a, b := archiveOf(t, "1.jpg"), archiveOf(t, "2.jpg", "3.jpg")
	half := a[:len(a)-512] // one block of zeros
	for name, c := range map[string]struct {
		content []byte
		samples string
		fault   string
	}{
		"two":               {append(bytes.Clone(a), b...), "1.jpg: 2.jpg: 3.jpg:", ""},
		"with room":         {append(append(bytes.Clone(a), make([]byte, 300*512)...), b...), "1.jpg: 2.jpg: 3.jpg:", ""},
		"half a mark":       {append(bytes.Clone(half), b...), "1.jpg: 2.jpg: 3.jpg:", ""},
		"zeros":             {append(bytes.Clone(a), make([]byte, 300*512+7)...), "1.jpg:", ""},
		"something":         {append(bytes.Clone(a), bytes.Repeat([]byte("x"), 700)...), "1.jpg:", "from byte 2048 on, behind the end mark, there are 700 bytes"},
		"the second is cut": {append(bytes.Clone(a), b[:len(b)-1024]...), "1.jpg: 2.jpg: 3.jpg:", "cut short"},
	} {
		s := Scan(bytes.NewReader(c.content), int64(len(c.content)))
		if samples, _ := names(s); samples != c.samples || (s.Fault == nil) != (c.fault == "") || s.Fault != nil && !strings.Contains(s.Fault.Error(), c.fault) {
			t.Errorf("%s: %q, %v", name, samples, s.Fault)
		}
	}
}

// Contiguous members count, sparse ones and pipes are left out with their reason.
func TestKindsOfMembers(t *testing.T) {
	b := archiveOf(t, "1.jpg", "2.jpg", "3.jpg", "4.jpg>")
	sparse := b[1024:1536]
	copy(sparse[257:], "ustar  \x00")                    // GNU's form
	copy(sparse[386:], "00000000000\x0000000000005\x00") // the only piece: from byte 0 on, 5 bytes
	copy(sparse[483:], "00000000005\x00")                // bytes in all
	for i, kind := range []byte{'7', 'S', '0', '6'} {
		h := b[i*1024:][:512]
		h[156] = kind
		copy(h[148:156], "        ")
		sum := 0
		for _, c := range h {
			sum += int(c)
		}
		copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	}
	s := Scan(bytes.NewReader(b), int64(len(b)))
	if samples, left := names(s); samples != "1.jpg: 3.jpg:" || left != "2.jpg 4.jpg" || s.Left[0].Why != naming.Sparse || s.Left[1].Why != naming.Special || s.Fault != nil {
		t.Errorf("samples %q, left out %+v, %v", samples, s.Left, s.Fault)
	}
}
