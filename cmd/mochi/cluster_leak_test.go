package main

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"testing"
	"time"

	"mochi/allreduce/natsring"
	"mochi/coordinator"
	"mochi/coordinator/event"
	"mochi/coordinator/jetstream"
	"mochi/coordinator/natsbus"
	"mochi/coordinator/protocol/config"
	"mochi/model/engine"
	"mochi/model/engine/gorgonia"
	"mochi/replica"
	"mochi/replica/data"
)

// rounds is an observer that passes on the members of each round, and a place
// for checkpoints that keeps none.
type rounds struct{ members chan string }

func (r rounds) Committed(coordinator.CommitRecord) {}

func (r rounds) Event(e event.Event) {
	if round, ok := e.(event.Round); ok {
		r.members <- round.Members
	}
}

func (rounds) Latest() (coordinator.Checkpoint, bool, error) {
	return coordinator.Checkpoint{}, false, nil
}

func (rounds) Save(_ context.Context, step int64, r io.Reader, _ func(context.Context) (coordinator.Voted, error)) (string, error) {
	_, err := io.Copy(io.Discard, r)
	return fmt.Sprint(step), err
}

func (rounds) Open(name string) (io.ReadSeekCloser, error) {
	return nil, fmt.Errorf("no checkpoint %s", name)
}

// Replicas join and leave a job in one process; the one that stays and the
// coordinator keep no goroutine and no memory of rounds gone by.
func TestRoundsLeaveNothingBehind(t *testing.T) {
	set, err := data.Open(writeIDX(t, t.TempDir(), 100, 20))
	if err != nil {
		t.Fatal(err)
	}
	server, err := natsbus.StartServer(natsbus.ServerOptions{StoreDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Shutdown()
	bus, err := natsbus.ConnectCoordinator(t.Context(), natsbus.Options{Job: "leak", Server: server})
	if err != nil {
		t.Fatal(err)
	}
	defer bus.Close()
	log, err := jetstream.Open(t.Context(), bus.Conn(), "leak")
	if err != nil {
		t.Fatal(err)
	}
	cfg := config.Default()
	cfg.Arch, cfg.Head, cfg.ImageSize, cfg.Recipe = "resnet8", "linear", 12, "cifar"
	cfg.Batch, cfg.BNGroup, cfg.Queue, cfg.QueueShards, cfg.Dim = 8, 4, 40, 4, 8
	cfg.MoCHi = config.MoCHi{N: 8, S: 4, S2: 2}
	cfg.Epochs = 100_000
	seen := rounds{make(chan string, 16)}
	job := coordinator.New(coordinator.Config{
		Job: "leak", Training: cfg, ConfigDigest: cfg.Digest(), LR: func(float64) float64 { return 0.01 },
		Bus: bus, Log: log, Checkpoints: seen, Observer: seen,
	})
	ended := make(chan error, 2)
	go func() { ended <- job.Run(t.Context()) }()

	open := func(p engine.Precision) (engine.Engine, error) {
		return gorgonia.New(engine.Config{Precision: p, Threads: 1})
	}
	member := func(name string) (*replica.Replica, <-chan error) {
		link, err := natsbus.ConnectReplica(t.Context(), natsbus.Options{Job: "leak", ID: name, Server: server})
		if err != nil {
			t.Fatal(err)
		}
		node, err := natsring.NewNode(natsring.Options{Job: "leak", ID: name, HubServer: server})
		if err != nil {
			t.Fatal(err)
		}
		r := replica.New(replica.Config{ID: name, Name: name, Engine: open, Data: set, Link: link, Ring: openRings(node)})
		over := make(chan error, 1)
		go func() {
			err := r.Run(t.Context())
			node.Close()
			link.Close()
			over <- err
		}()
		return r, over
	}
	awaitRound := func(members string) {
		t.Helper()
		for {
			select {
			case got := <-seen.members:
				if got == members {
					return
				}
			case err := <-ended:
				t.Fatalf("the coordinator ended: %v", err)
			case <-time.After(time.Minute):
				t.Fatalf("no round of %s", members)
			}
		}
	}
	_, stayerOver := member("stayer")
	awaitRound("stayer")
	visit := func(name string) {
		guest, over := member(name)
		awaitRound("stayer " + name)
		guest.Leave("test", 0)
		awaitRound("stayer")
		if err := <-over; err != nil {
			t.Fatal(err)
		}
	}
	const visits = 12
	heap := func() int {
		runtime.GC()
		runtime.GC() // what the first one finalised
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	for i := range 3 {
		visit(fmt.Sprintf("first-%d", i))
	}
	goroutines, bytes := runtime.NumGoroutine(), heap()
	for i := range visits {
		visit(fmt.Sprintf("guest-%d", i))
	}
	// A few goroutines of the NATS server come and go.
	if now := runtime.NumGoroutine(); now >= goroutines+visits {
		stacks := make([]byte, 1<<20)
		t.Errorf("%d goroutines after %d visits, %d before:\n%s", now, visits, goroutines, stacks[:runtime.Stack(stacks, true)])
	}
	// One session of this network is 3.5 MB.
	if now := heap(); now-bytes > visits<<20 {
		t.Errorf("%d bytes on the heap after %d visits, %d before", now, visits, bytes)
	}
	job.Stop("test")
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := <-stayerOver; err != nil {
		t.Error(err)
	}
}
