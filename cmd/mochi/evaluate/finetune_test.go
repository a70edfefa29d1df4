package evaluate

import (
	"math"
	"slices"
	"strings"
	"testing"

	"mochi/model/engine"
	"mochi/model/network"
)

// A part of the labels has so many images of each class, others with another seed, and
// at least one; a list has those that it names.
func TestLabelled(t *testing.T) {
	ds := shades{n: 101, size: 12}
	for _, c := range []struct {
		labels string
		want   [2]int // of each class: 51 and 50 images
	}{{"10%", [2]int{5, 5}}, {"0.1%", [2]int{1, 1}}, {"50%", [2]int{26, 25}}, {"100%", [2]int{51, 50}}} {
		at, _, err := FinetuneOptions{Labels: c.labels, Seed: 1}.labelled(ds)
		if err != nil {
			t.Fatal(err)
		}
		var got [2]int
		for _, i := range at {
			got[ds.Label(i)]++
		}
		if got != c.want || !slices.IsSorted(at) || len(slices.Compact(slices.Clone(at))) != len(at) {
			t.Errorf("%s: %v of the classes, want %v; %v", c.labels, got, c.want, at)
		}
		again, _, _ := FinetuneOptions{Labels: c.labels, Seed: 1}.labelled(ds)
		other, _, _ := FinetuneOptions{Labels: c.labels, Seed: 2}.labelled(ds)
		if !slices.Equal(at, again) || c.labels != "100%" && slices.Equal(at, other) {
			t.Errorf("%s: the seed does not decide: %v, %v, %v", c.labels, at, again, other)
		}
		if digestOfNames(ds, at) != digestOfNames(ds, again) || c.labels != "100%" && digestOfNames(ds, at) == digestOfNames(ds, other) {
			t.Errorf("%s: the digest is not of the list", c.labels)
		}
	}
	for _, bad := range []string{"0%", "101%", "-1%", "x%", "NaN%", "no file"} {
		if _, _, err := (FinetuneOptions{Labels: bad}).labelled(ds); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	at, err := listed(ds, []byte("image 7\n\nc1/image 3\r\nimage 7\n"))
	if err != nil || !slices.Equal(at, []int{3, 7}) {
		t.Errorf("%v, %v", at, err)
	}
	for text, says := range map[string]string{"image 3\nimage 101\n": `line 2: the training images have no "image 101"`, "\n": "names no image"} {
		if _, err := listed(ds, []byte(text)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// FuzzListed: whatever a list has, what is taken is ascending, in range, and named in it.
func FuzzListed(f *testing.F) {
	f.Add("image 7\nc1/image 3\n")
	f.Add("image 101\x00\n\r\n..\n/")
	ds := shades{n: 9, size: 12}
	f.Fuzz(func(t *testing.T, text string) {
		at, err := listed(ds, []byte(text))
		if err == nil && len(at) == 0 {
			t.Fatal("nothing, without an error")
		}
		for j, i := range at {
			if i < 0 || i >= ds.n || j > 0 && i <= at[j-1] || !strings.Contains(text, ds.Path(i)) {
				t.Fatalf("%v of %q", at, text)
			}
		}
	})
}

// The first step moves the backbone by its own rate times the gradient and the classifier
// by its, from the encoder's backbone; a backbone of rate 0 stays as it was.
func TestFinetuneRates(t *testing.T) {
	from := encoders(t)
	net, ds := from.state.Network(), shades{n: 40, size: 12}
	step := func(backbone, head float64) (start, after, sum []float32, of *tuning) {
		with, st, err := classifier(net, from.from, 2, 1)
		if err != nil {
			t.Fatal(err)
		}
		enc, err := OpenEncoders("gorgonia", engine.Config{Precision: engine.FP32, Threads: 2}, with, st)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(enc.Close)
		of = &tuning{FinetuneOptions: FinetuneOptions{
			Backbone: backbone, Head: head, Epochs: 1, Batch: 8, Group: 4, Seed: 1, Workers: 1, Progress: t.Logf,
		}, net: with, state: enc.state, data: chosen{ds, []int{0, 1, 2, 3, 4, 5, 6, 7}}}
		if err := of.run(t.Context()); err != nil { // one step
			t.Fatal(err)
		}
		return st.QueryParams, slices.Clone(enc.state.Host(engine.QueryParams)), of.sum, of
	}
	start, one, gradient, of := step(0.5, 0.5)
	_, two, _, _ := step(0.01, 0.5)
	_, frozen, _, _ := step(0, 0.5)
	moved := 0
	for _, p := range of.net.Params {
		for i := p.Offset; i < p.Offset+p.Size; i++ {
			rate := 0.01
			if isHead(p) {
				rate = 0.5
			}
			for _, c := range []struct {
				after []float32
				rate  float64
			}{{one, 0.5}, {two, rate}} {
				if want := float64(start[i]) - c.rate*float64(gradient[i]); math.Abs(float64(c.after[i])-want) > 1e-6*(1+math.Abs(want)) {
					t.Fatalf("%s: %v, want %v", p.Name, c.after[i], want)
				}
			}
			if !isHead(p) && frozen[i] != start[i] {
				t.Fatalf("%s moved with rate 0", p.Name)
			}
			if frozen[i] != start[i] {
				moved++
			}
		}
	}
	if moved == 0 {
		t.Error("the classifier did not learn")
	}
	for _, p := range net.Params { // where it began
		if isHead(p) {
			continue
		}
		i := slices.IndexFunc(of.net.Params, func(q network.Tensor) bool { return q.Name == p.Name })
		at := of.net.Params[i].Offset
		if !slices.Equal(start[at:at+p.Size], from.from.QueryParams[p.Offset:p.Offset+p.Size]) {
			t.Errorf("%s is not the encoder's", p.Name)
		}
	}
}
