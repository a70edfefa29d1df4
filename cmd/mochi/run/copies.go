package run

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"mochi/coordinator/event"
)

// Copies are the JSON-lines files of a RUN folder as each coordinator of a group has
// them: the same lines in the same order, numbered from 1 on. The log of the group
// says which line comes next. Methods may be called from several goroutines.
type Copies struct {
	path  string
	say   *Progress
	mu    sync.Mutex
	files map[string]*copied // those that are there
}

// markEvery is how many lines lie between those whose place is remembered.
const markEvery = 1024

// copied is one of the files. When it is full it becomes the next of its segments, as a
// lineFile does.
type copied struct {
	path     string
	segments []segment
	before   int64 // lines in them
	full     int64 // size from which on it becomes a segment

	file  *os.File
	size  int64   // of the whole lines in it
	count int64   // of them
	marks []int64 // where its lines 1, 1+markEvery, … begin
	last  int64   // highest step in it or a segment

	measured int // highest epoch after which its lines say where the encoder puts images
}

// lastMeasured is the event that ends an evaluation (package evaluate).
const lastMeasured = "geometry"

// total is how many lines there are, those of segments too.
func (f *copied) total() int64 { return f.before + f.count }

// OpenCopies opens the files in a RUN folder. A last line that was cut short by a crash
// is removed. From a damaged line on, what follows is moved aside: the others have it.
func OpenCopies(path string, p *Progress) (*Copies, error) {
	c := &Copies{path: path, say: p, files: map[string]*copied{}}
	for _, name := range []string{LogFile, SamplesFile} {
		segments, err := segmentsOf(filepath.Join(path, name))
		if err != nil {
			return nil, errors.Join(err, c.Close())
		}
		if _, err := os.Lstat(filepath.Join(path, name)); errors.Is(err, fs.ErrNotExist) && len(segments) == 0 {
			continue // until there is a line for it
		}
		if _, err := c.open(name); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	return c, nil
}

func (c *Copies) open(name string) (*copied, error) {
	f, err := openCopied(filepath.Join(c.path, name), c.say)
	if err == nil {
		c.files[name] = f
	}
	return f, err
}

func openCopied(path string, p *Progress) (*copied, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	f := &copied{path: path, full: segmentBytes, file: file}
	damaged := false
	if err = f.openSegments(); err == nil {
		damaged, err = f.scan()
	}
	if err == nil && damaged {
		var to string
		if to, err = f.setAside(path); err == nil {
			p.Say("warning: %s: line %d is damaged; from there on, the lines come from another coordinator. As they were, they are in %s", path, f.total()+1, to)
		}
	}
	if err == nil {
		err = file.Truncate(f.size)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), file.Close())
	}
	return f, nil
}

// scan counts the lines up to the first damaged one. One that was cut short at the end
// is no damage.
func (f *copied) scan() (damaged bool, err error) {
	for r := bufio.NewReaderSize(f.file, 1<<20); ; {
		line, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if !f.note(line) {
			return true, nil
		}
	}
}

// note counts a line that is in the file; false when it is none.
func (f *copied) note(line []byte) bool {
	var at struct {
		Step  int64  `json:"step"`
		Epoch int    `json:"epoch"`
		Event string `json:"event"`
	}
	if !bytes.HasPrefix(line, []byte("{")) || json.Unmarshal(line, &at) != nil {
		return false
	}
	if f.count%markEvery == 0 {
		f.marks = append(f.marks, f.size)
	}
	f.count, f.size = f.count+1, f.size+int64(len(line))
	switch at.Event {
	case "":
		f.last = max(f.last, at.Step)
	case lastMeasured:
		f.measured = max(f.measured, at.Epoch)
	}
	return true
}

// setAside copies what is behind the good lines to a file of its own.
func (f *copied) setAside(path string) (to string, err error) {
	if to, err = freeName(path); err != nil {
		return "", err
	}
	out, err := os.Create(to)
	if err != nil {
		return "", err
	}
	if _, err = f.file.Seek(f.size, io.SeekStart); err == nil {
		_, err = io.Copy(out, f.file)
	}
	return to, errors.Join(err, out.Close())
}

// of is a file by its name; one that is not there is made.
func (c *Copies) of(name string) (*copied, error) {
	if f := c.files[name]; f != nil {
		return f, nil
	}
	if name != LogFile && name != SamplesFile {
		return nil, fmt.Errorf("%q is no file of a run that has lines", name)
	}
	return c.open(name)
}

// Held is how many lines a file has.
func (c *Copies) Held(file string) (int64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.files[file]; f != nil {
		return f.total(), nil
	}
	return 0, nil
}

// Line appends the nth line of a file, without its newline; one that is there already is
// passed over. After an error nothing has happened.
func (c *Copies) Line(file string, n int64, line []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	f, err := c.of(file)
	if err != nil || n <= f.total() {
		return err
	}
	if n > f.total()+1 {
		return fmt.Errorf("%s has %d lines; line %d does not follow them", file, f.total(), n)
	}
	if f.size >= f.full {
		if err := f.turn(); err != nil {
			return fmt.Errorf("begin %s anew: %w", file, err)
		}
	}
	line = append(bytes.Clone(line), '\n')
	if _, err := f.file.WriteAt(line, f.size); err != nil {
		return errors.Join(err, f.file.Truncate(f.size)) // of a part of the line
	}
	if !f.note(line) {
		return errors.Join(fmt.Errorf("line %d for %s is no JSON object: %.60q", n, file, line), f.file.Truncate(f.size))
	}
	return nil
}

// Sync returns when all lines are on the disk.
func (c *Copies) Sync() error {
	c.mu.Lock()
	files := make([]*os.File, 0, len(c.files))
	for _, f := range c.files {
		files = append(files, f.file)
	}
	c.mu.Unlock() // a disk may stand still; who reads need not wait for that
	var err error
	for _, f := range files {
		err = errors.Join(err, f.Sync())
	}
	return err
}

// Read returns lines of a file from the nth on, without their newlines: about so many
// bytes of them, but one at least if there is one.
func (c *Copies) Read(file string, n int64, bytes int) ([][]byte, error) {
	c.mu.Lock()
	f, err := c.of(file)
	if err != nil || n < 1 || n > f.total() {
		c.mu.Unlock()
		return nil, err
	}
	if n <= f.before {
		of := f.holds(n)
		c.mu.Unlock()
		return of.read(n, bytes)
	}
	n -= f.before
	from, size, at, open := f.marks[(n-1)/markEvery], f.size, (n-1)/markEvery*markEvery+1, f.file
	c.mu.Unlock()
	return readFrom(io.NewSectionReader(open, from, size-from), n-at, bytes)
}

// readFrom returns lines behind so many others: about so many bytes of them, but one at
// least if there is one.
func readFrom(from io.Reader, pass int64, bytes int) ([][]byte, error) {
	r := bufio.NewReaderSize(from, 64<<10)
	var lines [][]byte
	for total := 0; len(lines) == 0 || total < bytes; pass-- {
		line, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if pass > 0 {
			continue
		}
		total += len(line)
		lines = append(lines, line[:len(line)-1])
	}
	return lines, nil
}

// Recorded is the last step that both logs hold; samples says whether there are two.
func (c *Copies) Recorded(samples bool) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	last := c.last(LogFile)
	if samples {
		last = min(last, c.last(SamplesFile))
	}
	return last
}

func (c *Copies) last(file string) int64 {
	if f := c.files[file]; f != nil {
		return f.last
	}
	return 0
}

// Measured is the highest epoch after which the encoder was evaluated, 0 when it was not,
// or that is not known: it stands in a segment.
func (c *Copies) Measured() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.files[LogFile]; f != nil {
		return f.measured
	}
	return 0
}

// Shared is the Sink of the coordinator that leads: lines go to the log of the group,
// and from there to the files of each. put passes one on.
func (c *Copies) Shared(put func(file string, line []byte)) Sink {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &shared{put: put, last: map[string]int64{}}
	for name, f := range c.files {
		s.last[name] = f.last
	}
	return s
}

// Close closes the files.
func (c *Copies) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var err error
	for _, f := range c.files {
		err = errors.Join(err, f.file.Close())
	}
	return err
}

type shared struct {
	put  func(file string, line []byte)
	mu   sync.Mutex
	last map[string]int64 // step, by file
}

// Step implements Sink.
func (s *shared) Step(file string, step int64, v any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if step <= s.last[file] {
		return nil
	}
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	s.last[file] = step
	s.put(file, line)
	return nil
}

// Event implements Sink.
func (s *shared) Event(e event.Event) error {
	line, err := event.Line(e, time.Now())
	if err == nil {
		s.put(LogFile, line)
	}
	return err
}
