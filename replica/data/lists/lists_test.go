package lists

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestRead(t *testing.T) {
	one := func(class string) []Entry { return []Entry{{Line: 2, Path: "a.png", Class: class}} }
	for name, c := range map[string]struct {
		file, text string
		want       []Entry
		bad        []int
		splits     bool
	}{
		"plain":            {"x.csv", "path,label\na.png,cat\n", one("cat"), nil, false},
		"byte-order mark":  {"x.csv", "\ufeffpath,label\na.png,cat\n", one("cat"), nil, false},
		"CRLF":             {"x.csv", "path,label\r\na.png,cat\r\n", one("cat"), nil, false},
		"no end of line":   {"x.csv", "path,label\na.png,cat", one("cat"), nil, false},
		"quotes":           {"x.csv", "\"path\",\"label\"\n\"a.png\",\"a \"\"cat\"\", black\"\n", one(`a "cat", black`), nil, false},
		"semicolons":       {"x.CSV", "path;label\na.png;cat\n", one("cat"), nil, false},
		"tabs":             {"x.tsv", "path\tlabel\na.png\tcat, dog\n", one("cat, dog"), nil, false},
		"order":            {"x.csv", "id,Label,File Name\n7, 3.0 ,a.png\n", one("3"), nil, false},
		"no label":         {"x.csv", "path\na.png\n", one(""), nil, false},
		"empty label":      {"x.csv", "path,label\na.png,\n", one(""), nil, false},
		"no class":         {"x.csv", "path,label\na.png,-1\n", one(""), nil, false},
		"label before":     {"x.csv", "path,class_name,label\na.png,cat,4\n", one("4"), nil, false},
		"bad lines":        {"x.csv", "path,label\na.png,1\na.png\na,b.png,2\n,3\n\nb.png,4\n", []Entry{{2, "a.png", "1", "", false}, {7, "b.png", "4", "", false}}, []int{3, 4, 5}, false},
		"a quote too much": {"x.csv", "path,label\n5\" a.png,1\nb.png,4\n", []Entry{{3, "b.png", "4", "", false}}, []int{2}, false},
		"a quote too few":  {"x.csv", "path,label\n\"a.png,1\nb.png,4\nc.png,\"5\"\nd.png,6\n", []Entry{{5, "d.png", "6", "", false}}, []int{2, 3, 4}, false},
		"a path of lines":  {"x.csv", "path,label\n\"a\nb.png\",1\nc.png,2\n", []Entry{{4, "c.png", "2", "", false}}, []int{2, 3}, false},
		"splits":           {"x.csv", "path,label,split\na.png,1,train\n", []Entry{{2, "a.png", "1", "train", false}}, nil, true},
		"JSON": {"x.jsonl", "{\"path\": \"a.png\", \"label\": 7}\n\n{\"file_name\": \"b.png\", \"label\": [3.0], \"split\": \"val\"}\r\n{\"path\": 3}\nnot\n{\"path\":\"c\",\"label\":[1,2]}",
			[]Entry{{1, "a.png", "7", "", false}, {3, "b.png", "3", "val", false}, {6, "c", "", "", true}}, []int{4, 5}, true},
		"JSON, mark": {"x.ndjson", "\ufeff{\"path\": \"a.png\", \"label\": \"cat\"} {}\n{\"path\": \"a.png\", \"label\": \"cat\"}", one("cat"), []int{1}, false},
	} {
		l, err := Read(c.file, strings.NewReader(c.text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !reflect.DeepEqual(l.Entries, c.want) || !slices.Equal(l.Bad, c.bad) || l.Splits != c.splits {
			t.Errorf("%s: %+v, want %+v and bad lines %v", name, l, c.want, c.bad)
		}
	}
}

func TestReadNamesTheFault(t *testing.T) {
	long := strings.Repeat("x,\n", maxLine/3+5000)
	for name, c := range map[string]struct{ file, text, want string }{
		"no header":       {"x.csv", "a.png,cat\n", "no column named path"},
		"empty":           {"x.csv", "", "line 1"},
		"a header alone":  {"x.csv", "path,label\n", "no line"},
		"no JSON line":    {"x.jsonl", "\n\n", "no line"},
		"UTF-16":          {"x.csv", "\xff\xfep\x00a\x00", "UTF-16"},
		"a quote, no end": {"x.csv", "path,label\na,1\n\"" + long, "behind line 2 is longer"},
		"a long line":     {"x.jsonl", "{}\n" + strings.ReplaceAll(long, "\n", " "), "line 2 is longer"},
	} {
		if _, err := Read(c.file, strings.NewReader(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if _, err := ReadFile(t.TempDir()); err == nil || !strings.Contains(err.Error(), "no plain file") {
		t.Errorf("a folder: %v", err)
	}
}

// FuzzRead: whatever a list holds, each of its lines is an entry, bad or blank, and none
// is two of these.
func FuzzRead(f *testing.F) {
	f.Add(false, []byte("path,label\na.png,cat\n\"b\nc\",1\n\"x"))
	f.Add(true, []byte("{\"path\":\"a\",\"label\":[1]}\n{}\n[\n"))
	f.Add(false, []byte("\ufeffpath;split\r\na;train\r\n"))
	f.Fuzz(func(t *testing.T, asJSON bool, content []byte) {
		name := map[bool]string{false: "x.csv", true: "x.jsonl"}[asJSON]
		l, err := Read(name, bytes.NewReader(content))
		if err != nil {
			return
		}
		lines := bytes.Count(content, []byte("\n")) + 1
		seen := make(map[int]bool)
		for _, e := range l.Entries {
			if e.Path == "" || strings.ContainsAny(e.Path, "\r\n") && !asJSON || e.Line < 1 || e.Line > lines || seen[e.Line] {
				t.Fatalf("%+v of %d lines", e, lines)
			}
			seen[e.Line] = true
		}
		for _, line := range l.Bad {
			if line < 1 || line > lines || seen[line] {
				t.Fatalf("bad line %d of %d", line, lines)
			}
			seen[line] = true
		}
		if again, err := Read(name, bytes.NewReader(content)); err != nil || fmt.Sprint(again) != fmt.Sprint(l) {
			t.Fatalf("read again: %v, %v", again, err)
		}
	})
}
