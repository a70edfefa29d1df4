//go:build gpu

package cuda

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"mochi/model/engine"
	"mochi/model/engine/cuda/emulator"
)

// What is staged is uploaded from pinned memory beside the computation, and a
// Forward of it gives the bits of one that uploads itself; a Forward of other
// images does not take what is staged, and nothing reads images after Unstage.
func TestStage(t *testing.T) {
	emulator.Only(t)
	e, net := start(t, engine.Config{}), small(t)
	_, p := ready(t, e, net, engine.Spec{Batch: 2})
	a, b := values(p.calls.Images(), 1), values(p.calls.Images(), 2)
	forward := func(images []float32) []float32 {
		t.Helper()
		out := make([]float32, p.calls.Embeddings())
		if err := p.Forward(images, out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	stage := func(images []float32) {
		t.Helper()
		if err := p.Stage(images); err != nil {
			t.Fatal(err)
		}
	}
	wantA, wantB := forward(a), forward(b)
	bytes := 4 * p.calls.Images()
	uploads, copies := fmt.Sprintf("upload %d pinned", bytes), fmt.Sprintf("copy %d on the device", bytes)
	emulator.Record(t)

	stage(a)
	if got := forward(a); !slices.Equal(got, wantA) {
		t.Error("staged images give other bits")
	}
	if r := emulator.Record(t); count(r, uploads) != 1 || count(r, copies) != 1 || count(r, "staged") != 0 {
		t.Errorf("a staged forward:\n%s", strings.Join(r, "\n"))
	}
	stage(a)
	if got := forward(b); !slices.Equal(got, wantB) {
		t.Error("a forward takes the images that were staged for another")
	}
	if got := forward(a); !slices.Equal(got, wantA) {
		t.Error("what was staged once is used again")
	}
	if r := emulator.Record(t); count(r, copies) != 0 {
		t.Error("a forward of other images copies what was staged")
	}
	changing := slices.Clone(a)
	stage(changing)
	if err := p.Unstage(); err != nil {
		t.Fatal(err)
	}
	copy(changing, b)
	if got := forward(changing); !slices.Equal(got, wantB) {
		t.Error("images are remembered after Unstage")
	}
	stage(a) // during a backward
	grads := make([]float32, net.NumParams())
	if err := p.Backward(wantB, grads, nil); err != nil {
		t.Fatal(err)
	}
	if got := forward(a); !slices.Equal(got, wantA) {
		t.Error("images staged before a backward give other bits")
	}
	if err := p.Stage(a[1:]); err == nil {
		t.Error("a wrong number of images is staged")
	}
	stage(b)
	if err := errors.Join(p.Close(), p.Close()); err != nil { // with images on their way
		t.Error(err)
	}
	if p.Stage(b) == nil {
		t.Error("a closed program stages")
	}
}

// Where device memory does not suffice for staging, nothing fails.
func TestStageWithoutMemory(t *testing.T) {
	emulator.Only(t)
	if os.Getenv("MOCHI_EMULATOR_MEMORY") == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestStageWithoutMemory$", "-test.v")
		cmd.Env = append(os.Environ(), "MOCHI_EMULATOR_MEMORY=8000000")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestStageWithoutMemory") {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	e := start(t, engine.Config{})
	_, p := ready(t, e, small(t), engine.Spec{Batch: 2})
	leave, err := e.enter()
	if err != nil {
		t.Fatal(err)
	}
	free, err := e.device.Free()
	if err != nil {
		t.Fatal(err)
	}
	rest, err := e.device.Alloc(int(free) - 1000)
	leave()
	if err != nil {
		t.Fatal(err)
	}
	images, want, got := values(p.calls.Images(), 1), make([]float32, p.calls.Embeddings()), make([]float32, p.calls.Embeddings())
	if err := errors.Join(p.Forward(images, want), p.Stage(images), p.Forward(images, got)); err != nil {
		t.Error(err)
	}
	if !slices.Equal(got, want) {
		t.Error("other bits")
	}
	if err := rest.Release(); err != nil {
		t.Error(err)
	}
	emulator.Record(t)
}

// The device's own time of a step, by the emulator's clock of a microsecond for
// each piece of work. What is staged in time costs a copy on the device; of the
// gradients, the last part's copies are what nothing hides.
func TestDeviceTime(t *testing.T) {
	emulator.Only(t)
	e, net := start(t, engine.Config{}), large(t)
	_, p := ready(t, e, net, engine.Spec{Batch: 2})
	images, out, grads := values(p.calls.Images(), 1), make([]float32, p.calls.Embeddings()), make([]float32, net.NumParams())
	before := e.DeviceTime()
	if err := errors.Join(p.Forward(images, out), p.Backward(out, grads, nil)); err != nil {
		t.Fatal(err)
	}
	took := e.DeviceTime()
	ticks := func(name string) int64 { return (took[name] - before[name]).Microseconds() }
	launches := 0
	for _, s := range p.backward {
		launches += len(s.launches)
	}
	if got := ticks("gpu_forward"); got < int64(len(p.forward.launches)-1) || got > int64(len(p.forward.launches)+5) {
		t.Errorf("forward of %d launches: %d µs", len(p.forward.launches), got)
	}
	if got := ticks("gpu_backward"); got < int64(launches) {
		t.Errorf("backward of %d launches: %d µs", launches, got)
	}
	last := p.backward[len(p.backward)-1]
	if got := ticks("gpu_gradients"); got < int64(len(last.spans)) || got > int64(len(last.spans)+4) {
		t.Errorf("copies of %d parts: %d µs", len(last.spans), got)
	}
	if got := ticks("gpu_images"); got < 1 || got > 4 {
		t.Errorf("images: %d µs", got)
	}
	emulator.Record(t)
}
