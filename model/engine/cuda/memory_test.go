//go:build gpu

package cuda

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"mochi/model/engine"
	"mochi/model/engine/cuda/driver"
	"mochi/model/engine/cuda/emulator"
)

// onSmallGPU runs the test that calls it again on an emulated GPU of 8 MB, and
// says whether this is that run.
func onSmallGPU(t *testing.T) bool {
	t.Helper()
	emulator.Only(t)
	if os.Getenv("MOCHI_EMULATOR_MEMORY") != "" {
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), "MOCHI_EMULATOR_MEMORY=8000000")
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

// outOfMemory reads what an error says: MiB of a step and of what is free, and
// the largest batch.
func outOfMemory(t *testing.T, err error, batch int) (need, free, fits int) {
	t.Helper()
	var full *driver.OutOfMemory
	if !errors.As(err, &full) {
		t.Fatalf("a batch of %d: %v", batch, err)
	}
	head := fmt.Sprintf("a step with a batch of %d needs ", batch)
	_, rest, found := strings.Cut(err.Error(), head)
	if !found {
		t.Fatalf("it does not say %q: %v", head, err)
	}
	if _, scanErr := fmt.Sscanf(rest, "%d MiB of device memory, %d of 7 MiB are free for it; the largest batch (--bn-group) that fits is about %d:",
		&need, &free, &fits); scanErr != nil {
		t.Fatalf("%v: %v", scanErr, err)
	}
	if need <= free || fits < 1 || fits >= batch {
		t.Errorf("needs %d MiB of %d MiB free, %d fit", need, free, fits)
	}
	return need, free, fits
}

// A step that does not fit says what it needs and what would fit, and leaves
// nothing behind.
func TestOutOfMemory(t *testing.T) {
	if !onSmallGPU(t) {
		return
	}
	e, net := start(t, engine.Config{}), small(t)
	st, _ := ready(t, e, net, engine.Spec{Batch: 2}) // which stays as it is
	_, err := st.Compile(engine.Spec{Batch: 500})
	_, _, fits := outOfMemory(t, err, 500)
	// What is said to fit does, and much more does not.
	if p, err := st.Compile(engine.Spec{Batch: fits - fits/20}); err != nil {
		t.Error(err)
	} else if err := p.Close(); err != nil {
		t.Error(err)
	}
	if p, err := st.Compile(engine.Spec{Batch: fits + fits/20 + 1}); err == nil {
		t.Errorf("a batch of %d fits, the largest was said to be %d", fits+fits/20+1, fits)
		p.Close()
	}
	emulator.Record(t)
}

// A step is both encoders: the largest batch is the one for which both fit.
func TestOutOfMemoryOfBothEncoders(t *testing.T) {
	if !onSmallGPU(t) {
		return
	}
	e, net := start(t, engine.Config{}), small(t)
	st, err := e.NewState(net)
	if err != nil {
		t.Fatal(err)
	}
	both := func(batch int) error {
		key, err := st.Compile(engine.Spec{Encoder: engine.Key, Batch: batch, Mode: engine.Forward})
		if err != nil {
			return err
		}
		query, err := st.Compile(engine.Spec{Batch: batch})
		if err == nil {
			err = query.Close()
		}
		return errors.Join(err, key.Close())
	}
	const batch = 300
	need, free, fits := outOfMemory(t, both(batch), batch)
	if need < 3*free/2 && fits > batch*free/need+batch/10 {
		t.Errorf("of %d samples in %d MiB, %d fit into %d", batch, need, fits, free)
	}
	if err := both(fits - fits/20); err != nil {
		t.Errorf("a batch of %d, where %d should fit: %v", fits-fits/20, fits, err)
	}
	if both(fits+fits/20+1) == nil {
		t.Errorf("a batch of %d fits, the largest was said to be %d", fits+fits/20+1, fits)
	}
	if err := st.Close(); err != nil {
		t.Error(err)
	}
	emulator.Record(t)
}

// A network whose parameters do not fit says so.
func TestOutOfMemoryOfParameters(t *testing.T) {
	if !onSmallGPU(t) {
		return
	}
	e := start(t, engine.Config{})
	_, err := e.NewState(large(t))
	var full *driver.OutOfMemory
	if !errors.As(err, &full) || !strings.Contains(err.Error(), "parameters, momentum and gradients need 17 MiB of device memory, before any batch") {
		t.Error(err)
	}
	emulator.Record(t)
}

// keysOf are shards of K keys of length dim for an Offload.
func keysOf(k, dim, shards int) (all []engine.Shard) {
	for v := range shards {
		all = append(all, engine.Shard{Index: v, Keys: values((k-v+shards-1)/shards*dim, v)})
	}
	return all
}

func newLoss(t *testing.T, e *gpu, shape engine.LossShape) engine.Offload {
	t.Helper()
	o, err := e.Contrast().(engine.Offloader).NewOffload(shape)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := o.Close(); err != nil {
			t.Error(err)
		}
	})
	return o
}

// A queue that does not fit says what the loss needs, and the loss goes on with
// what does.
func TestOutOfMemoryOfLoss(t *testing.T) {
	if !onSmallGPU(t) {
		return
	}
	e := start(t, engine.Config{})
	const dim, k = 512, 4000 // the arrays of a scan fit, the keys do not
	o := newLoss(t, e, engine.LossShape{Dim: dim, Batch: 4, Queue: k, Shards: 8, Temperature: 0.2})
	shards := keysOf(k, dim, 8)
	scan := func(n int) error {
		return o.Scan(engine.OffloadScan{Q: values(4*dim, 1), Shards: shards[:n], Parts: make([]float32, n*4*(dim+engine.PartScalars))})
	}
	for range 2 {
		err := scan(8)
		var full *driver.OutOfMemory
		if says := "4 queries against 8 of 8 shards of a queue of 4000 need 11 MiB of device memory, 8 MiB of them for the keys; lower --queue"; !errors.As(err, &full) || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want %q", err, says)
		}
		if err := scan(1); err != nil {
			t.Error(err)
		}
	}
	emulator.Record(t)
}

// The largest batch is one that leaves room for the loss, which is open but has
// not scanned yet.
func TestOutOfMemoryLeavesRoomForLoss(t *testing.T) {
	if !onSmallGPU(t) {
		return
	}
	e, net := start(t, engine.Config{}), small(t)
	st, _ := ready(t, e, net, engine.Spec{Batch: 2})
	const batch, dim, k, v = 500, 32, 2048, 4
	_, err := st.Compile(engine.Spec{Batch: batch})
	_, _, alone := outOfMemory(t, err, batch)
	o := newLoss(t, e, engine.LossShape{Dim: dim, Batch: 8, Queue: k, Shards: v, Temperature: 0.2})
	_, err = st.Compile(engine.Spec{Batch: batch})
	_, _, fits := outOfMemory(t, err, batch)
	if fits >= alone {
		t.Errorf("%d samples fit, as many as without a loss: %d", fits, alone)
	}
	p, err := st.Compile(engine.Spec{Batch: fits - fits/20})
	if err != nil {
		t.Fatal(err)
	}
	scan := func() error {
		return o.Scan(engine.OffloadScan{Q: values(8*dim, 1), Shards: keysOf(k, dim, v), Parts: make([]float32, v*8*(dim+engine.PartScalars))})
	}
	if err := scan(); err != nil {
		t.Error(err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	// Now that it has its memory, it is not counted twice.
	_, err = st.Compile(engine.Spec{Batch: batch})
	if _, _, now := outOfMemory(t, err, batch); now < fits-1 || now > fits+fits/10+1 {
		t.Errorf("%d samples fit beside the loss, %d were said to", now, fits)
	}
	emulator.Record(t)
}

// Room for algorithms that cannot be made larger stays what it was: programs
// that are there rely on it.
func TestReserveKeepsWhatItHas(t *testing.T) {
	if !onSmallGPU(t) {
		return
	}
	e := start(t, engine.Config{})
	leave, err := e.enter()
	if err != nil {
		t.Fatal(err)
	}
	defer leave()
	if err := e.reserve(5000); err != nil {
		t.Fatal(err)
	}
	var full *driver.OutOfMemory
	if err := e.reserve(1 << 30); !errors.As(err, &full) {
		t.Error(err)
	}
	if e.space.Bytes != 5000 || e.space.Pointer == 0 {
		t.Errorf("left are %d bytes", e.space.Bytes)
	}
	emulator.Record(t)
}
