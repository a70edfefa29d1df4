package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// listening are the ports that a process listens on, as ss -ltnup shows them.
func (p *process) listening() (tcp, udp []string) {
	p.t.Helper()
	proc := fmt.Sprintf("/proc/%d", p.cmd.Process.Pid)
	files, err := filepath.Glob(proc + "/fd/*")
	if err != nil || len(files) == 0 {
		p.t.Fatalf("the files of %s: %v", proc, err)
	}
	own := map[string]bool{}
	for _, f := range files {
		if to, err := os.Readlink(f); err == nil { // or it was closed meanwhile
			own[to] = true
		}
	}
	table := func(name, state string) (ports []string) {
		text, err := os.ReadFile(filepath.Join(proc, "net", name))
		if err != nil {
			return nil // a machine without IPv6
		}
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line) // proc(5): number, local, remote, state, …, the tenth is the inode
			if len(f) < 10 || f[3] != state || !own["socket:["+f[9]+"]"] {
				continue
			}
			_, hex, _ := strings.Cut(f[1], ":")
			port, err := strconv.ParseUint(hex, 16, 16)
			if err != nil {
				p.t.Fatalf("%s: %q", name, line)
			}
			ports = append(ports, fmt.Sprint(port))
		}
		return ports
	}
	tcp = append(table("tcp", "0A"), table("tcp6", "0A")...)
	udp = append(table("udp", "07"), table("udp6", "07")...)
	return tcp, udp
}

// documented is how many ports docs/cluster.md says that a process listens on.
func documented(t *testing.T, process string) (tcp, udp int) {
	t.Helper()
	text, err := os.ReadFile("../../docs/cluster.md")
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile(`(?m)^\| ` + regexp.QuoteMeta(process) + ` \| (\d+)[^|]*\| (\d+)[^|]*\|$`).FindSubmatch(text)
	if row == nil {
		t.Fatalf("docs/cluster.md does not say what %s listens on", process)
	}
	tcp, _ = strconv.Atoi(string(row[1]))
	udp, _ = strconv.Atoi(string(row[2]))
	return tcp, udp
}

// mustListen compares the two, and asks each port, without a token, what it says.
func (p *process) mustListen(as string) {
	p.t.Helper()
	tcp, udp := p.listening()
	wantTCP, wantUDP := documented(p.t, as)
	if len(tcp) != wantTCP || len(udp) != wantUDP {
		p.t.Errorf("%s listens on TCP %v and UDP %v; docs/cluster.md says %d and %d", as, tcp, udp, wantTCP, wantUDP)
	}
	for _, port := range tcp {
		conn, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err != nil {
			p.t.Errorf("%s, port %s: %v", as, port, err)
			continue
		}
		_ = conn.SetDeadline(time.Now().Add(300 * time.Millisecond))
		said := make([]byte, 64)
		n, err := conn.Read(said)
		var silent net.Error
		if n > 0 || !(errors.As(err, &silent) && silent.Timeout()) {
			p.t.Errorf("%s, port %s, says %q to a stranger (%v)", as, port, said[:n], err)
		}
		conn.Close()
	}
}

// Processes listen on what docs/cluster.md lists, and say nothing there to whoever asks.
func TestPorts(t *testing.T) {
	data := writeIDX(t, t.TempDir(), 100, 20)
	for process := range strings.SplitSeq("coordinator,group", ",") {
		t.Run(process, func(t *testing.T) {
			const steps = "1000000"
			if process == "coordinator" {
				state := filepath.Join(t.TempDir(), "state")
				c, rs := cluster(t, data, state, 2, "--steps", steps)
				awaitStep(t, state, 3, c)
				c.mustListen("a coordinator")
				for _, r := range rs {
					r.mustListen("a replica")
				}
				return
			}
			s := newStanding(t, data, "--steps", steps)
			s.all(1)
			s.await("step 3", func() bool { return s.last() >= 3 })
			for _, name := range s.names {
				as := "one that stands by"
				if name == s.leader() {
					as = "one that leads a group"
				}
				s.coordinators[name].mustListen(as)
			}
			s.replicas[0].mustListen("a replica")
		})
	}
	t.Run("train", func(t *testing.T) {
		out := filepath.Join(t.TempDir(), "run")
		p := start(t, slices.Concat([]string{"train", "--data", data, "--out", out, "--replicas", "2", "--steps", "1000000"}, tiny)...)
		awaitStep(t, out, 3, p)
		p.mustListen("`mochi train`")
	})
}
