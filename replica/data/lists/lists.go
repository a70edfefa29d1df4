// Package lists reads lists of images: CSV files and JSON lines, of which each line
// gives the path of an image, and perhaps its class and its split. It opens none of
// the images.
//
// A CSV file begins with the names of its columns; path, label and split are looked for
// under their usual names, in any case. What separates the columns is a comma, a
// semicolon or a tab, whichever the first line has. Quotes are those of RFC 4180.
//
// Cost: a line is some 100 bytes and its path. The file is read once, from its
// beginning to its end.
package lists

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"mochi/replica/data/shards"
)

// IsList says whether a path names a list, by its ending in any case.
func IsList(path string) bool { return isCSV(path) || isJSON(path) }

func isCSV(path string) bool  { return ends(path, ".csv", ".tsv") }
func isJSON(path string) bool { return ends(path, ".jsonl", ".ndjson") }

func ends(path string, endings ...string) bool {
	return slices.Contains(endings, strings.ToLower(filepath.Ext(path)))
}

// Entry is a line that names an image.
type Entry struct {
	Line  int    // from 1 on; of a quoted text over several lines, the first
	Path  string // as it stands there, but for space around it
	Class string // as shards.Class has it, "" for none
	Split string // as it stands there, "" for none
	Odd   bool   // its label is not understood: it has none
}

// List is what a list holds.
type List struct {
	Entries []Entry
	Bad     []int // the lines that are not understood
	Splits  bool  // it says of which split its images are
}

// The names of columns, the first that is there. Those of classes are the fields of
// .json in shards.
var (
	pathColumns  = []string{"path", "file_path", "filepath", "image_path", "img_path", "file", "filename", "file_name", "image", "img"}
	splitColumns = []string{"split", "subset", "partition"}
)

// What a list may be.
const (
	maxLine  = 1 << 20 // bytes of a line
	maxLines = 16_000_000
)

// ReadFile reads the list at a path.
func ReadFile(path string) (*List, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no plain file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	l, err := Read(path, f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return l, nil
}

// Read reads a list, whose name says what it is.
func Read(name string, r io.Reader) (*List, error) {
	in := bufio.NewReaderSize(r, 1<<16)
	head, err := in.Peek(3)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte("\xef\xbb\xbf")):
		if _, err := in.Discard(3); err != nil {
			return nil, err
		}
	case bytes.HasPrefix(head, []byte("\xff\xfe")), bytes.HasPrefix(head, []byte("\xfe\xff")):
		return nil, errors.New("the list is written in UTF-16: save it as UTF-8")
	}
	l := &List{}
	if isJSON(name) {
		err = l.readJSON(in)
	} else {
		err = l.readCSV(in, ends(name, ".tsv"))
	}
	if err == nil && len(l.Entries) == 0 && len(l.Bad) == 0 {
		err = errors.New("the list has no line")
	}
	return l, err
}

// add takes a line. Texts that come again and again are kept once.
func (l *List) add(e Entry, texts map[string]string) error {
	if len(l.Entries) >= maxLines {
		return fmt.Errorf("the list has more than %d lines, the limit: cut it into several", maxLines)
	}
	for _, text := range []*string{&e.Class, &e.Split} {
		kept, there := texts[*text]
		if !there {
			kept = strings.Clone(*text)
			texts[kept] = kept
		}
		*text = kept
	}
	l.Splits = l.Splits || e.Split != ""
	l.Entries = append(l.Entries, e)
	return nil
}

// bad notes the lines from first to last, which are not understood.
func (l *List) bad(first, last int) error {
	for line := first; line <= last; line++ {
		if len(l.Bad) >= maxLines {
			return fmt.Errorf("more than %d lines are not understood", maxLines)
		}
		l.Bad = append(l.Bad, line)
	}
	return nil
}

// bounded ends a file whose reader takes in too much for one line.
type bounded struct {
	r    io.Reader
	left int
}

var errLong = fmt.Errorf("is longer than %d bytes, the limit of a line: is there a quote without its other one?", maxLine)

// Read implements io.Reader.
func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errLong
	}
	n, err := b.r.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

func (l *List) readCSV(r *bufio.Reader, tabs bool) error {
	head, err := firstLine(r)
	if err != nil {
		return err
	}
	limited := &bounded{r: r, left: maxLine}
	in := csv.NewReader(limited)
	in.FieldsPerRecord, in.ReuseRecord = -1, true
	in.Comma = separator(head, tabs)
	columns, err := in.Read()
	if err != nil {
		return fmt.Errorf("line 1: %w", err)
	}
	at, err := columnsOf(columns)
	if err != nil {
		return err
	}
	texts := make(map[string]string)
	for width, line := len(columns), 1; ; {
		limited.left = maxLine
		record, err := in.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		var bad *csv.ParseError
		switch {
		case errors.Is(err, errLong):
			return fmt.Errorf("what begins behind line %d %w", line, err)
		case errors.As(err, &bad):
			if err := l.bad(bad.StartLine, bad.Line); err != nil { // a quote may have swallowed some
				return err
			}
			line = bad.Line
			continue
		case err != nil:
			return err
		}
		line, _ = in.FieldPos(0)
		e := Entry{Line: line}
		if len(record) == width {
			e.Path = strings.TrimSpace(record[at.path])
		}
		if e.Path == "" || strings.ContainsAny(e.Path, "\r\n") {
			last := line + strings.Count(strings.Join(record, ""), "\n")
			if err := l.bad(line, last); err != nil {
				return err
			}
			continue
		}
		if at.class >= 0 {
			e.Class = shards.Class(record[at.class])
		}
		if at.split >= 0 {
			e.Split = strings.TrimSpace(record[at.split])
		}
		if err := l.add(e, texts); err != nil {
			return err
		}
	}
}

// firstLine looks at the first line, without taking it, as far as the buffer reaches.
func firstLine(r *bufio.Reader) (string, error) {
	head, err := r.Peek(1 << 15)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	line, _, _ := strings.Cut(strings.TrimLeft(string(head), "\r\n"), "\n")
	return line, nil
}

// separator is what stands between the columns.
func separator(head string, tabs bool) rune {
	switch {
	case tabs, !strings.Contains(head, ",") && strings.Contains(head, "\t"):
		return '\t'
	case !strings.Contains(head, ",") && strings.Contains(head, ";"):
		return ';'
	}
	return ','
}

// columns are where path, class and split stand; −1 where they do not.
type columns struct{ path, class, split int }

func columnsOf(names []string) (columns, error) {
	first := make(map[string]int)
	for i, name := range names {
		name = strings.NewReplacer(" ", "_", "-", "_").Replace(strings.ToLower(strings.TrimSpace(name)))
		if _, there := first[name]; !there {
			first[name] = i
		}
	}
	find := func(names []string) int {
		for _, name := range names {
			if i, there := first[name]; there {
				return i
			}
		}
		return -1
	}
	at := columns{find(pathColumns), find(shards.ClassFields()), find(splitColumns)}
	if at.path < 0 {
		return at, fmt.Errorf("its first line has no column named path (it reads %.100q): want a first line such as path,label", strings.Join(names, ","))
	}
	return at, nil
}

func (l *List) readJSON(r io.Reader) error {
	in := bufio.NewScanner(r)
	in.Buffer(make([]byte, 1<<16), maxLine)
	texts := make(map[string]string)
	line := 0
	for in.Scan() {
		line++
		text := bytes.TrimSpace(in.Bytes())
		if len(text) == 0 {
			continue
		}
		e, ok := jsonEntry(text)
		if e.Line = line; !ok {
			if err := l.bad(line, line); err != nil {
				return err
			}
			continue
		}
		if err := l.add(e, texts); err != nil {
			return err
		}
	}
	if errors.Is(in.Err(), bufio.ErrTooLong) {
		return fmt.Errorf("line %d is longer than %d bytes, the limit of a line", line+1, maxLine)
	}
	return in.Err()
}

// jsonEntry reads one object.
func jsonEntry(text []byte) (e Entry, ok bool) {
	var fields map[string]any
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if d.Decode(&fields) != nil || d.More() {
		return e, false
	}
	for _, name := range pathColumns {
		if path, is := fields[name].(string); is && strings.TrimSpace(path) != "" {
			e.Path = strings.TrimSpace(path)
			break
		}
	}
	for _, name := range splitColumns {
		if split, is := fields[name].(string); is {
			e.Split = strings.TrimSpace(split)
			break
		}
	}
	e.Class, e.Odd = shards.FieldsClass(fields)
	return e, e.Path != ""
}
