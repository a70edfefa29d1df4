package checkpoint

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
)

// probedState is tinyState with a probe of 2 classes of 3 features.
func probedState() *State {
	s := tinyState(1)
	s.Probe = &Probe{Classes: 2, Features: 3, Params: []float32{1, 2, 3, 4, 5, 6, 7, 8}, Momentum: []float32{8, 7, 6, 5, 4, 3, 2, 1}}
	return s
}

// A probe is read as it was written, counts in the digests, and one that is not whole
// is refused by name.
func TestProbe(t *testing.T) {
	want := probedState()
	file := encode(t, want)
	got, err := Read(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	p := got.Probe
	if p == nil || p.Classes != 2 || p.Features != 3 || Digest(p.Vectors()...) != Digest(want.Probe.Vectors()...) {
		t.Errorf("read %+v", p)
	}
	digests := Digests(want.QueryParams, want.KeyParams, want.Momentum, want.QueryBuffers, want.KeyBuffers, p.Params, p.Momentum)
	if err := got.Verify(StateDigest(digests), nil); err != nil {
		t.Error(err)
	}
	if err := got.Verify(StateDigest(digests[:5]), nil); err == nil {
		t.Error("its digest is that of a state without the probe")
	}
	info, err := Describe("x", Format, got)
	if err != nil || info.Digest.Probe != Digest(p.Vectors()...) {
		t.Errorf("%+v, %v", info, err)
	}

	start := 8 + binary.LittleEndian.Uint64(file)
	for _, c := range []struct{ old, new, says string }{
		{`"probe.weight"`, `"probe.weighd"`, "probe.weighd"},
		{`"probe.bias":{"dtype":"F32","shape":[2]`, `"probe.bias":{"dtype":"F32","shape":[1,2]`, "probe.bias has shape [1 2]"},
		{`"probe.weight":{"dtype":"F32","shape":[2,3]`, `"probe.weight":{"dtype":"F32","shape":[6]`, "not [C, F]"},
		{`"optimizer.probe.bias"`, `"optimizer.probe.vias"`, "optimizer.probe.vias"},
		{`"optimizer.probe.weight":{"dtype":"F32"`, `"optimizer.probe.weight":{"dtype":"I32"`, "optimizer.probe.weight"},
	} {
		text := string(file[8:start])
		if !strings.Contains(text, c.old) {
			t.Fatalf("%s is not in %s", c.old, text)
		}
		text = strings.Replace(text, c.old, c.new, 1)
		blob := binary.LittleEndian.AppendUint64(nil, uint64(len(text)))
		blob = reseal(append(append(blob, text...), file[start:]...))
		if _, err := Read(bytes.NewReader(blob)); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.new, err)
		}
	}
	want.Probe.Momentum = nil
	if err := Write(new(bytes.Buffer), want); err == nil || !strings.Contains(err.Error(), "probe of 2 classes") {
		t.Errorf("a probe without momentum: %v", err)
	}
}
