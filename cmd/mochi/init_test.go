package main

import (
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mochi/model/network"
	"mochi/replica/checkpoint"
)

// still are settings under which a step leaves weights as they were, or nearly.
var still = []string{"--lr", "1e-9", "--weight-decay", "0"}

// A job that begins with weights of a file trains those, and not what its seed gives:
// all of another program's checkpoint with --resume, the encoder alone with --init,
// which takes other images and another head, and a RUN folder too.
func TestBeginningWithWeights(t *testing.T) {
	folder := writeIDX(t, t.TempDir(), 40, 12)
	dir := t.TempDir()
	train := func(name string, args ...string) (said string) {
		t.Helper()
		return trained(t, slices.Concat([]string{"train", "--data", folder, "--out", filepath.Join(dir, name)}, tiny, args))
	}
	state := func(run string) *checkpoint.State {
		st, err := checkpoint.Load(checkpoint.Within(filepath.Join(dir, run)))
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	train("run", "--steps", "3")
	moco := filepath.Join(dir, "moco.pth.tar")
	mochi(t, "export", filepath.Join(dir, "run"), "--format", "moco", "--out", moco)
	want := state("run")

	train("resumed", slices.Concat(still, []string{"--steps", "1", "--seed", "77", "--resume", moco})...)
	got := state("resumed")
	near(t, "--resume of MoCo's file", want, got, "")
	if got.Step != 1 || got.QueueFilled < int64(got.K) { // the queue in it is full
		t.Errorf("step %d, %d keys", got.Step, got.QueueFilled)
	}
	for name, from := range map[string]string{"own": filepath.Join(dir, "run"), "other's": moco} {
		said := train(name, slices.Concat(still, []string{"--steps", "1", "--seed", "77", "--dim", "7", "--image-size", "16", "--init", from})...)
		got := state(name)
		near(t, "--init "+name, want, got, "fc.")
		if got.Dim != 7 || got.Step != 1 || got.QueueFilled >= int64(got.K) || !strings.Contains(said, "begins anew: fc.") {
			t.Errorf("%s: dimension %d, step %d, %d keys\n%s", name, got.Dim, got.Step, got.QueueFilled, said)
		}
	}
	// The same command goes on, as without --init.
	said := train("own", slices.Concat(still, []string{"--steps", "2", "--seed", "77", "--dim", "7", "--image-size", "16", "--init", filepath.Join(dir, "run")})...)
	if got := state("own"); got.Step != 2 || !strings.Contains(said, "--init changes nothing") {
		t.Errorf("step %d\n%s", got.Step, said)
	}

	other := slices.Concat([]string{"train", "--data", folder, "--out", filepath.Join(dir, "other")}, tiny)
	refused(t, 2, slices.Concat(other, []string{"--arch", "resnet20", "--init", moco}), "init:", "resnet20")
	refused(t, 2, slices.Concat(other, []string{"--init", filepath.Join(dir, "none")}), "init:", "no such file")
	refused(t, 2, slices.Concat(other, []string{"--init", moco, "--resume", moco}), "init:", "two beginnings")
	absent(t, filepath.Join(dir, "other"))
}

// near compares the weights of two states by name, but for those that begin with except.
func near(t *testing.T, what string, want, got *checkpoint.State, except string) {
	t.Helper()
	worst, compared := 0., 0
	for _, a := range want.Net.Params {
		if except != "" && strings.HasPrefix(a.Name, except) {
			continue
		}
		at := slices.IndexFunc(got.Net.Params, func(b network.Tensor) bool { return b.Name == a.Name })
		if at < 0 {
			t.Fatalf("%s: no %s", what, a.Name)
		}
		b := got.Net.Params[at]
		for i := range a.Size {
			worst = max(worst, math.Abs(float64(want.QueryParams[a.Offset+i])-float64(got.QueryParams[b.Offset+i])))
			compared++
		}
	}
	if compared == 0 || worst > 1e-5 {
		t.Errorf("%s: %d weights, which differ by up to %g", what, compared, worst)
	}
}
