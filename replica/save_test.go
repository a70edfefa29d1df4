package replica

import (
	"context"
	"log/slog"
	"math"
	"strings"
	"testing"
	"time"

	"mochi/model/network"
	"mochi/replica/checkpoint"
)

// slowLink uploads when it is told to.
type slowLink struct {
	Link
	began chan int64
	goOn  chan bool
}

func (l *slowLink) Upload(_ context.Context, step int64, _ []byte) error {
	l.began <- step
	<-l.goOn
	return nil
}

// A checkpoint that is due while one is on its way never holds up the training; of
// those that wait only the newest is sent, and the end waits for it.
func TestUploadsNeverWait(t *testing.T) {
	l := &slowLink{began: make(chan int64), goOn: make(chan bool)}
	u := &uploads{link: l, log: slog.New(slog.DiscardHandler)}
	start := func(step int64) {
		done := make(chan bool)
		go func() { u.send(t.Context(), encoded{step: step}); close(done) }()
		select {
		case <-done:
		case <-time.After(30 * time.Second):
			t.Fatalf("the checkpoint of step %d holds up the training", step)
		}
	}
	start(1)
	if step := <-l.began; step != 1 {
		t.Fatalf("began with step %d", step)
	}
	for step := int64(2); step <= 5; step++ {
		start(step)
	}
	l.goOn <- true
	if step := <-l.began; step != 5 {
		t.Errorf("step %d comes next", step)
	}
	ended := make(chan error, 1)
	go func() { ended <- u.wait(t.Context()) }()
	l.goOn <- true
	if err := <-ended; err != nil {
		t.Error(err)
	}
	start(6) // after a rest
	if step := <-l.began; step != 6 {
		t.Errorf("step %d comes after a rest", step)
	}
	l.goOn <- true
	u.running.Wait()
}

// A state that a commit has led to, and that holds an infinity, is not stored: it
// ends the job, and says what to do.
func TestNoCheckpointOfAnOverflow(t *testing.T) {
	net := &network.Network{Params: []network.Tensor{{Name: "fc.weight", Size: 2}}}
	r := &Replica{uploads: uploads{log: slog.New(slog.DiscardHandler)}}
	state := &checkpoint.State{Step: 7, Net: net, QueryParams: []float32{1, float32(math.Inf(1))}, KeyParams: make([]float32, 2), Momentum: make([]float32, 2)}
	err := r.upload(t.Context(), state)
	if err == nil || !strings.Contains(err.Error(), "step 7") || !strings.Contains(err.Error(), "lower --lr") {
		t.Fatalf("%v", err)
	}
	if f := failure(&membership{}, err); !f.Fatal || f.Leaves {
		t.Errorf("%+v", f)
	}
}
