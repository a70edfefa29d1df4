package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mochi/replica/checkpoint"
)

// --probe logs its accuracy and leaves the encoder as it is; it is the same whether one
// replica trains or three, and whether the run was interrupted. Without labels it is refused.
func TestProbe(t *testing.T) {
	data := writeIDX(t, t.TempDir(), 100, 20)
	root := t.TempDir()
	train := func(name string, extra ...string) string {
		out := filepath.Join(root, name)
		mochi(t, append(append([]string{"train", "--data", data, "--out", out}, tiny...), extra...)...)
		return out
	}
	without := train("without", "--steps", "8")
	one := train("one", "--steps", "8", "--probe")
	three := train("three", "--steps", "8", "--probe", "--replicas", "3")
	twice := train("twice", "--steps", "4", "--probe")
	train("twice", "--steps", "8", "--probe")
	mustEqual(t, one, three)
	mustEqual(t, one, twice)

	calm, right := steps(t, without), 0.0
	for i, line := range steps(t, one) {
		if line.Digest != calm[i].Digest || line.Loss != calm[i].Loss {
			t.Errorf("step %d: encoder %s, loss %v; without the probe %s, %v", line.Step, line.Digest, line.Loss, calm[i].Digest, calm[i].Loss)
		}
		if line.ProbeLoss <= 0 || line.Phases["probe"] <= 0 || line.CPU["probe"] <= 0 {
			t.Errorf("step %d: probe loss %v, phases %v, cpu %v", line.Step, line.ProbeLoss, line.Phases, line.CPU)
		}
		if right += line.ProbeAcc; calm[i].ProbeLoss != 0 {
			t.Error("a probe without --probe")
		}
	}
	if right == 0 {
		t.Error("its accuracy is 0 throughout")
	}
	st, err := checkpoint.Load(filepath.Join(one, "checkpoints", checkpoint.LatestName))
	if err != nil || st.Probe == nil || st.Probe.Classes != 4 {
		t.Errorf("the checkpoint has the probe %+v, %v", st.Probe, err)
	}
	// On the test images, in evaluation mode, it is what its weights make of the features.
	latest := filepath.Join(one, "checkpoints", checkpoint.LatestName)
	train("one", "--steps", "10", "--probe", "--knn-every", "1")
	if st, err = checkpoint.Load(latest); err != nil {
		t.Fatal(err)
	}
	features := filepath.Join(root, "f.npy")
	mochi(t, "embed", "--checkpoint", latest, "--data", data, "--split", "test", "--out", features)
	blob, hits := contents(t, features)[128:], 0
	for i := range 20 {
		best, most := 0, math.Inf(-1)
		for c := range 4 {
			z := float64(st.Probe.Params[4*64+c])
			for j := range 64 {
				z += float64(st.Probe.Params[64*c+j]) * float64(math.Float32frombits(binary.LittleEndian.Uint32(blob[4*(64*i+j):])))
			}
			if z > most {
				best, most = c, z
			}
		}
		if best == i%4 {
			hits++
		}
	}
	if want := fmt.Sprintf(`"probe_top1":%v`, float64(hits)/20); hits == 0 || !strings.Contains(string(contents(t, filepath.Join(one, "log.jsonl"))), want) {
		t.Errorf("log.jsonl has no %s", want)
	}
	refused(t, 2, append([]string{"coordinator", "--listen", "127.0.0.1:4222", "--state", filepath.Join(root, "c"), "--probe"}, tiny...),
		"probe: must know how many classes there are: --data is missing")
	flat := t.TempDir()
	for i := range 20 {
		f, err := os.Create(filepath.Join(flat, fmt.Sprintf("%d.png", i)))
		if err == nil {
			err = errors.Join(png.Encode(f, image.NewGray(image.Rect(0, 0, 12, 12))), f.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	refused(t, 2, append([]string{"train", "--data", flat, "--out", filepath.Join(root, "flat"), "--probe"}, tiny...), "probe: needs labelled data")
}
