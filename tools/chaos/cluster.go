package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"mochi/tools/lines"
)

// proc is a process under a name: the one that runs, and what is expected of it.
type proc struct {
	name string
	args []string

	mu       sync.Mutex
	cmd      *exec.Cmd
	done     chan struct{} // closed when cmd has ended
	expected bool          // to end: it was killed, or told to go
}

// cluster is a coordinator and replicas as processes, each a node of a network. It
// owns them and the network; close ends them all.
type cluster struct {
	mochi, folder, state, data string
	settings                   []string
	coordinator                *proc
	replicas                   map[string]*proc
	network                    network
	skies                      skies
	note                       func(what string, more any) // the record of what happened

	mu     sync.Mutex
	ending bool
	faults []string // ends that nobody expected
}

// newCluster starts nothing yet. Without a network it makes one of relays, of which
// seed draws what they lose.
func newCluster(c *cluster, names []string, seed uint64) (*cluster, error) {
	if c.network == nil {
		var err error
		if c.network, err = newRelays(names, seed); err != nil {
			return nil, err
		}
	}
	c.skies.network = c.network
	c.replicas = map[string]*proc{}
	c.coordinator = &proc{name: hub, args: append([]string{
		"coordinator", "--listen", c.network.listen(), "--state", c.state, "--data", c.data, "--sample-log", "--token-file", c.token()}, c.settings...)}
	for _, name := range names {
		c.replicas[name] = &proc{name: name, args: []string{"replica", "--join", "nats://" + c.network.join(name),
			"--data", c.data, "--name", name, "--threads", "1", "--workers", "1", "--token-file", c.token()}}
	}
	return c, nil
}

// token is the file in which the coordinator leaves the token for the replicas.
func (c *cluster) token() string { return filepath.Join(c.folder, "token") }

// start starts a process, and watches over its end. One that runs already, since
// it ended by itself and was started again, is left alone.
func (c *cluster) start(p *proc) error {
	out, err := os.OpenFile(filepath.Join(c.folder, p.name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer out.Close() // the process has its own
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		select {
		case <-p.done:
		default:
			return nil
		}
	}
	argv := c.network.command(p.name, append([]string{c.mochi}, p.args...)...)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = append(os.Environ(), "MOCHI_VITALS="+c.vitals(p.name))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true} // Ctrl-C is for this program alone
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	p.cmd, p.done, p.expected = cmd, make(chan struct{}), false
	c.note("started", map[string]any{"who": p.name, "pid": cmd.Process.Pid})
	go c.watch(p, cmd, p.done)
	return nil
}

// watch notes how a process ends. One that ends without being told to, is a
// broken promise; it is started again, as whatever supervises it would.
func (c *cluster) watch(p *proc, cmd *exec.Cmd, done chan struct{}) {
	_ = cmd.Wait() // how it ended is in ProcessState
	p.mu.Lock()
	expected := p.expected
	p.mu.Unlock()
	close(done)
	c.mu.Lock()
	again := !expected && !c.ending
	if again {
		c.faults = append(c.faults, fmt.Sprintf("%s ended by itself: %v; its last words are in %s.log", p.name, cmd.ProcessState, p.name))
	}
	c.mu.Unlock()
	c.note("ended", map[string]any{"who": p.name, "status": cmd.ProcessState.String(), "expected": !again})
	if !again {
		return
	}
	time.Sleep(time.Second) // not in a busy loop
	c.mu.Lock()
	again = !c.ending
	c.mu.Unlock()
	if again {
		if err := c.start(p); err != nil {
			c.blame("%v", err)
		}
	}
}

func (c *cluster) blame(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = append(c.faults, fmt.Sprintf(format, args...))
}

// broken lists what was noted as broken so far.
func (c *cluster) broken() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.faults)
}

// signal sends a signal; ends says that the process is to end of it. It returns
// a channel that is closed when that process has ended.
func (p *proc) signal(s syscall.Signal, ends bool) (<-chan struct{}, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expected = p.expected || ends
	err := p.cmd.Process.Signal(s)
	if errors.Is(err, os.ErrProcessDone) {
		err = nil // it ended by itself, which is noted where it is seen
	}
	return p.done, err
}

// pid is that of the process that runs, or ran last.
func (p *proc) pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd.Process.Pid
}

// status is how the process ended; -1 after a signal.
func (p *proc) status() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd.ProcessState.ExitCode()
}

// end tells the coordinator to stop as Ctrl-C does, and waits for all.
func (c *cluster) end(within time.Duration) {
	c.mu.Lock()
	c.ending = true
	c.mu.Unlock()
	limit := time.After(within)
	done, err := c.coordinator.signal(syscall.SIGINT, true)
	if err != nil {
		c.blame("%v", err)
	}
	for _, p := range c.everybody() {
		if p != c.coordinator {
			p.mu.Lock()
			done = p.done
			p.mu.Unlock()
		}
		select {
		case <-done:
			want := 0
			if p == c.coordinator {
				want = 130
			}
			if got := p.status(); got != want {
				c.blame("%s ended with status %d after an orderly stop, not %d", p.name, got, want)
			}
		case <-limit:
			c.blame("%s did not end within %v of the stop", p.name, within)
			return
		}
	}
}

// everybody lists the coordinator, then the replicas.
func (c *cluster) everybody() []*proc {
	all := []*proc{c.coordinator}
	for _, p := range c.replicas {
		all = append(all, p)
	}
	return all
}

// close kills what still runs.
func (c *cluster) close() {
	c.mu.Lock()
	c.ending = true
	c.mu.Unlock()
	for _, p := range c.everybody() {
		if p == nil || p.cmd == nil {
			continue
		}
		if done, err := p.signal(syscall.SIGKILL, true); err == nil {
			<-done
		}
	}
	if err := c.network.close(); err != nil {
		c.note("the network is not taken away", err.Error())
	}
}

// line is one of log.jsonl.
type line struct {
	Event  string             `json:"event"`
	Step   int64              `json:"step"`
	Round  int64              `json:"round"`
	World  int                `json:"world"`
	Digest string             `json:"digest"`
	StepMs float64            `json:"step_ms"`
	Time   time.Time          `json:"time"`
	Phases map[string]float64 `json:"phases"`
	From   int64              `json:"from"` // of "rolled back"
	To     int64              `json:"to"`
}

// readLog reads the lines of a log.jsonl and its segments that are whole; an end that is cut short
// is left out, another broken line is an error that names it.
func readLog(path string) ([]line, error) {
	t := tail{path: path}
	err := t.read()
	return t.lines, err
}

// tail is a log that is read while it is written: each line once.
type tail struct {
	path  string
	lines []line
	size  int64 // of them
}

// read reads the lines that have come.
func (t *tail) read() error {
	f, err := lines.Open(t.path)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.CopyN(io.Discard, f, t.size); err != nil {
		return fmt.Errorf("%s: it is shorter than it was: %w", t.path, err)
	}
	r := bufio.NewReaderSize(f, 1<<20)
	for {
		text, err := r.ReadBytes('\n')
		if err != nil {
			return nil
		}
		var l line
		if err := json.Unmarshal(text, &l); err != nil {
			return fmt.Errorf("%s: line %d: %w", t.path, len(t.lines)+1, err)
		}
		t.lines, t.size = append(t.lines, l), t.size+int64(len(text))
	}
}

// commits are the lines of a log that are steps.
func commits(lines []line) []line {
	var out []line
	for _, l := range lines {
		if l.Event == "" {
			out = append(out, l)
		}
	}
	return out
}
