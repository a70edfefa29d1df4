package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"mochi/allreduce/natsserver/existing"
)

// newOverNATS makes the places for two coordinators that use NATS servers, and starts
// nothing.
func newOverNATS(t *testing.T, data, nats, creds string, settings ...string) *standing {
	t.Helper()
	root := t.TempDir()
	s := &standing{
		T: t, data: data, join: nats, nats: nats, creds: creds, settings: append(slices.Clone(tiny), settings...), names: []string{"a", "b"},
		states: map[string]string{}, coordinators: map[string]*process{},
	}
	for _, name := range s.names {
		s.states[name] = filepath.Join(root, name)
	}
	return s
}

// Two coordinators on a NATS cluster of three. The one that leads is killed, and then a
// NATS server: the job goes on without starting any replica again, and nothing of it can
// be seen in the result.
func TestCoordinatorsOnNATS(t *testing.T) {
	data := writeIDX(t, t.TempDir(), 100, 20)
	const n = 240
	whole := filepath.Join(t.TempDir(), "whole")
	mochi(t, append([]string{"train", "--data", data, "--out", whole, "--steps", fmt.Sprint(n)}, tiny...)...)
	servers := existing.Start(t, existing.Options{Servers: 3, JetStream: true})
	s := newOverNATS(t, data, servers.Join(), "", "--steps", fmt.Sprint(n), "--checkpoint-every", "20", "--min-replicas", "2")
	s.all(2)
	s.await("step 30", func() bool { return s.last() >= 30 })
	leader := s.leader()
	killed := time.Now()
	s.coordinators[leader].kill()
	s.await("another leader", func() bool { return s.leader() != leader })
	at := s.last() + 30
	s.coordinator(leader)
	s.await("steps under it", func() bool { return s.last() >= at })
	t.Logf("next commit %v after the kill of the leader", s.committed(killed).Sub(killed))
	servers.Stop(0)
	at = s.last() + 30
	s.await("steps without a NATS server", func() bool { return s.last() >= at })
	for name, c := range s.coordinators {
		if status := c.wait(); status != 0 {
			t.Errorf("%s ended with %d:\n%s", name, status, c.errs.String())
		}
	}
	for _, r := range s.replicas {
		r.mustEnd(0)
	}
	s.mustEndLike(whole, n)
}

// committed is when the first step was committed by whoever leads after a moment.
func (s *standing) committed(after time.Time) time.Time {
	led := false
	for _, l := range lines[ledLine](s.T, filepath.Join(s.states[s.leader()], "log.jsonl")) {
		led = led || l.Event == "leads" && l.Time.After(after)
		if led && l.Event == "" && l.Time.After(after) {
			return l.Time
		}
	}
	return after
}

// NATS wants credentials, and is away for a while: the job goes on when it is back.
// SIGTERM hands over, Ctrl-C ends the job for all; started again, it goes on.
func TestNATSIsAway(t *testing.T) {
	data := writeIDX(t, t.TempDir(), 100, 20)
	const n = 160
	whole := filepath.Join(t.TempDir(), "whole")
	mochi(t, append([]string{"train", "--data", data, "--out", whole, "--steps", fmt.Sprint(n)}, tiny...)...)
	servers := existing.Start(t, existing.Options{JetStream: true, Closed: true})
	s := newOverNATS(t, data, servers.Join(), servers.Credentials(true), "--steps", fmt.Sprint(n), "--checkpoint-every", "20")
	s.all(1)
	s.await("step 30", func() bool { return s.last() >= 30 })
	leader := s.leader()
	status := mochi(t, append([]string{"status", "--join", s.join, "--json"}, s.credentials()...)...)
	if want := fmt.Sprintf(`"group":{"leader":%q`, leader); !strings.Contains(status, want) {
		t.Errorf("status does not say %s: %s", want, status)
	}
	servers.Stop(0)
	at := s.last()
	servers.Begin(0)
	s.await("steps with NATS back", func() bool { return s.last() >= at+30 })
	leader = s.leader()
	s.coordinators[leader].signal(syscall.SIGTERM)
	s.coordinators[leader].mustEnd(0)
	s.await("another leader", func() bool { return s.leader() != leader })
	at = s.last()
	s.await("a step under it", func() bool { return s.last() >= at+10 })
	s.stopsAndGoesOn(leader, whole, n)
}

// What NATS servers lack is told at the start.
func TestNATSIsUnfit(t *testing.T) {
	start := func(url string, extra ...string) []string {
		return slices.Concat([]string{"coordinator", "--nats", url, "--state", filepath.Join(t.TempDir(), "run")}, tiny, extra)
	}
	plain := existing.Start(t, existing.Options{})
	refused(t, 1, start(plain.Join()), "JetStream is not on at "+plain.URLs[0], "jetstream block")
	small := existing.Start(t, existing.Options{JetStream: true, Payload: 64 << 10})
	refused(t, 1, start(small.Join()), "65536 bytes at most", "max_payload")
	closed := existing.Start(t, existing.Options{JetStream: true, Closed: true})
	refused(t, 1, start(closed.Join()), "it wants credentials", "--nats-creds")
	wrong := closed.Credentials(false)
	refused(t, 1, start(closed.Join(), "--nats-creds", wrong), "it does not take the credentials in "+wrong)
	refused(t, 1, []string{"replica", "--join", closed.Join(), "--nats-creds", wrong, "--data", writeIDX(t, t.TempDir(), 20, 4)}, "it does not take the credentials in "+wrong)

	none := filepath.Join(t.TempDir(), "none.creds")
	if err := os.WriteFile(none, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, 2, start("nats://u:secret@h", "--nats-creds", none), "nats: \"nats://u:xxxxx@h\" has a name or a password in it", "with --nats-creds", "nats-creds: "+none+" is no file of NATS credentials")
	refused(t, 2, start("nats://h", "--listen", ":1", "--insecure", "--standby", "a=b:1,c=d:1,e=f:1", "--resume", "never"), "nats: and --standby", "listen: is where replicas join", "insecure: is for a coordinator", "resume: never")
	refused(t, 2, append([]string{"coordinator", "--state", t.TempDir(), "--nats-creds", wrong}, tiny...), "--nats, which is missing")
	refused(t, 2, start("tls://a,nats://b"), "some of \"tls://a,nats://b\" begin with tls://")
}
