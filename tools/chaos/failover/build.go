package failover

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"mochi/tools/chaos/relay"
)

// build makes the folder, the relays and the command lines.
func (t *trial) build() (err error) {
	if t.folder == "" {
		t.folder, err = os.MkdirTemp("", "mochi-failover-")
	} else {
		err = os.MkdirAll(t.folder, 0o755)
	}
	if err != nil {
		return err
	}
	t.data = filepath.Join(t.folder, "images")
	if err := t.job.Images(t.data); err != nil {
		return err
	}
	keys, token := filepath.Join(t.folder, "keys"), filepath.Join(t.folder, "token")
	if out, err := exec.Command(t.mochi, "token", "keys", keys).CombinedOutput(); err != nil {
		return fmt.Errorf("make the keys of the group: %w: %s", err, out)
	}
	names := t.names
	listen, peer, err := ports(len(names))
	if err != nil {
		return err
	}
	join := make([]string, len(names)) // where replicas reach each, slowly
	for i := range names {
		if join[i], err = t.relay(listen[i], relay.Conditions{Delay: slowly}, nil); err != nil {
			return err
		}
	}
	t.pairs = map[[2]int]*relay.Relay{}
	for i, name := range names {
		var members []string
		for j, other := range names {
			at := peer[j]
			if i != j {
				if at, err = t.relay(peer[j], relay.Conditions{}, &[2]int{i, j}); err != nil {
					return err
				}
			}
			members = append(members, fmt.Sprintf("%s=%s/%s", other, join[j], at[strings.LastIndex(at, ":")+1:]))
		}
		state := filepath.Join(t.folder, "state-"+name)
		t.states = append(t.states, state)
		t.coordinators = append(t.coordinators, &process{name: name, args: append([]string{"coordinator", "--standby", strings.Join(members, ","),
			"--name", name, "--listen", listen[i], "--state", state, "--data", t.data, "--sample-log", "--keys", keys, "--token-file", token}, t.job.Settings...)})
	}
	for _, name := range []string{"a", "b", "c"} {
		t.replicas = append(t.replicas, &process{name: name, args: []string{"replica", "--join", strings.Join(join, ","),
			"--data", t.data, "--name", name, "--threads", "1", "--workers", "1", "--token-file", token}})
	}
	return nil
}

// relay starts one to a target, and returns where it listens.
func (t *trial) relay(target string, c relay.Conditions, pair *[2]int) (string, error) {
	r, err := relay.Listen("127.0.0.1:0", target, 1)
	if err != nil {
		return "", err
	}
	r.Set(c)
	t.relays = append(t.relays, r)
	if pair != nil {
		t.pairs[*pair] = r
	}
	return r.Addr(), nil
}

// ports are addresses that nobody listens on, two for each coordinator.
func ports(n int) (listen, peer []string, err error) {
	var free []string
	for range 2 * n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, nil, err
		}
		defer l.Close() // all of them are held until all are chosen
		free = append(free, l.Addr().String())
	}
	return free[:n], free[n:], nil
}

// process is one under a name, started again after a kill.
type process struct {
	name string
	args []string
	cmd  *exec.Cmd
	done chan struct{} // closed when cmd has ended
}

func (p *process) start(program, folder string) error {
	out, err := os.OpenFile(filepath.Join(folder, p.name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer out.Close() // the process has its own
	p.cmd = exec.Command(program, p.args...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		p.cmd = nil
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	done := make(chan struct{})
	p.done = done
	cmd := p.cmd
	go func() {
		_ = cmd.Wait() // how it ended is in ProcessState
		close(done)
	}()
	return nil
}

// ended says whether it has ended, and with which status; -1 after a signal.
func (p *process) ended() (status int, ended bool) {
	if p.cmd == nil {
		return 0, false
	}
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode(), true
	default:
		return 0, false
	}
}
