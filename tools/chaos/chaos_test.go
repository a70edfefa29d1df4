package main

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestPlan: a plan is a function of its seed; it ends in time, hurts nobody who
// still suffers, and has every kind in it when it is long.
func TestPlan(t *testing.T) {
	longest := map[string]time.Duration{}
	for _, k := range kinds {
		longest[k.name] = k.most
	}
	for seed := range uint64(20) {
		plan := draw(seed, time.Hour, 6*time.Second, kinds, names)
		if !reflect.DeepEqual(plan, draw(seed, time.Hour, 6*time.Second, kinds, names)) {
			t.Fatalf("seed %d: two plans", seed)
		}
		if reflect.DeepEqual(plan, draw(seed+1, time.Hour, 6*time.Second, kinds, names)) {
			t.Errorf("seeds %d and %d: one plan", seed, seed+1)
		}
		count, free, last := map[string]int{}, map[string]time.Duration{}, time.Duration(0)
		for _, f := range plan {
			if f.At < last || f.At < free[f.Who] || f.At+f.For > time.Hour || f.For <= 0 || f.For > longest[f.Kind] {
				t.Errorf("seed %d: %v", seed, f)
			}
			if i := slices.IndexFunc(kinds, func(k kind) bool { return k.name == f.Kind }); kinds[i].ends && lives(f.Who, names) && f.At > time.Hour*2/5 {
				t.Errorf("seed %d: it was to live: %v", seed, f)
			} else if (kinds[i].on == "ring") != (f.To != "") || f.To == f.Who {
				t.Errorf("seed %d: %v", seed, f)
			}
			count[f.Kind]++
			last, free[f.Who] = f.At, f.At+f.For+rest
		}
		for _, k := range kinds {
			if count[k.name] == 0 {
				t.Errorf("seed %d: no %s in an hour", seed, k.name)
			}
		}
	}
}

func TestChoose(t *testing.T) {
	if of, err := choose("kill,disk-full"); err != nil || len(of) != 2 || of[1].on != "disk" {
		t.Errorf("%v, %v", of, err)
	}
	if _, err := choose("kill,flood"); err == nil || !strings.Contains(err.Error(), `"flood"`) {
		t.Errorf("an unknown kind: %v", err)
	}
}

// log is a sound log of n steps.
func log(n int64) []line {
	lines := []line{{Event: "round"}}
	for step := int64(1); step <= n; step++ {
		lines = append(lines, line{Step: step, Digest: string(rune('a' + step%20))})
	}
	return lines
}

func TestCheckLog(t *testing.T) {
	if broken := checkLog(log(9), 9); broken != nil {
		t.Errorf("a sound log: %q", broken)
	}
	for name, c := range map[string]struct {
		lines []line
		want  string
	}{
		"lost":        {slices.Delete(log(9), 4, 5), "step 5 follows step 3"},
		"repeated":    {slices.Insert(log(9), 5, line{Step: 4}), "step 4 follows step 4"},
		"begins late": {log(9)[2:], "step 2 follows step 0"},
		"ends early":  {log(8), "ends with step 8"},
		"rolled back": {append(log(9), line{Event: "rolled back", From: 8, To: 7}), "rolled back from step 8 to 7"},
		"shards":      {append(log(9), line{Event: "shards lost"}), "shards lost"},
	} {
		if broken := checkLog(c.lines, 9); len(broken) != 1 || !strings.Contains(broken[0], c.want) {
			t.Errorf("%s: %q", name, broken)
		}
	}
}

func TestCompareSteps(t *testing.T) {
	if broken := compareSteps(log(9), log(9)); broken != nil {
		t.Errorf("the same: %q", broken)
	}
	other, mute := log(9), log(9)
	other[6].Digest = "z"
	for i := range mute {
		mute[i].Digest = ""
	}
	for name, c := range map[string]struct {
		run  []line
		want string
	}{"other": {other, "step 6"}, "mute": {mute, "only 0 of 9"}, "empty": {nil, "only 0 of 0"}} {
		if broken := compareSteps(c.run, log(9)); len(broken) != 1 || !strings.Contains(broken[0], c.want) {
			t.Errorf("%s: %q", name, broken)
		}
	}
}

// TestGrown: what grows by a little at each reading is found and said with its
// figures, what a fault filled for a while is not, and what was before does not count.
func TestGrown(t *testing.T) {
	half := time.Unix(1000, 0)
	for name, c := range map[string]struct {
		of   func(i int) vital
		want []string
	}{
		"steady":        {func(int) vital { return vital{KiB: 90000, Files: 40, Threads: 12} }, nil},
		"a burst":       {func(i int) vital { return vital{KiB: 90000 + 900000*(i/30%4/3)} }, nil},
		"the first":     {func(i int) vital { return vital{KiB: 90000 + 500*min(i, 200)} }, nil},
		"little memory": {func(i int) vital { return vital{KiB: 90000 + 50*i} }, nil},
		"memory":        {func(i int) vital { return vital{KiB: 90000 + 500*i} }, []string{"grew: memory_kib from 19"}},
		"heap":          {func(i int) vital { return vital{HeapKiB: 9000 + 90*i} }, []string{"heap_kib from 27000 to 44"}},
		"goroutines":    {func(i int) vital { return vital{Goroutines: 40 + i/5} }, []string{"goroutines from 80 to 1"}},
		"files":         {func(i int) vital { return vital{Files: 40 + i/5} }, []string{"files from 80 to 1"}},
		"threads":       {func(i int) vital { return vital{Threads: 12 + i/5} }, []string{"threads from 52 to 9"}},
	} {
		l := life{name: "p", pid: 5}
		for i := range 400 {
			v := c.of(i)
			v.At = half.Add(time.Duration(i-200) * time.Second)
			l.seen = append(l.seen, v)
		}
		l.seen[200].At = half.Add(time.Millisecond)
		_, got, ok := l.grown(half, 10*time.Second)
		if !ok || len(got) != len(c.want) || len(got) > 0 && !strings.Contains(got[0], c.want[0]) {
			t.Errorf("%s: %q", name, got)
		}
		if _, got, ok := (&life{seen: l.seen[:209]}).grown(half, 10*time.Second); ok || got != nil {
			t.Errorf("%s: the first ones say %q", name, got)
		}
		if _, got, ok := (&life{seen: l.seen[195:]}).grown(half, 10*time.Second); ok || got != nil {
			t.Errorf("%s: one that has just begun says %q", name, got)
		}
	}
	if v, ok := readVital(os.Getpid()); !ok || v.KiB < 1000 || v.Files < 3 || v.Threads < 1 {
		t.Errorf("this process: %+v %v", v, ok)
	}
}

// TestOwnVitals: those of the process asked for, without a line that is cut short.
func TestOwnVitals(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.vitals.jsonl")
	text := `{"time":"2026-01-02T03:04:05Z","pid":5,"goroutines":7,"heap_bytes":4096}
{"time":"2026-01-02T03:04:06Z","pid":5,"gorou{"time":"2026-01-02T03:04:07Z","pid":6,"goroutines":8,"heap_bytes":8192}
{"time":"2026-01-02T03:04:08Z","pid":6,"goroutines":9,"heap_bytes":8192}
`
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	five, six := readOwn(path, 5), readOwn(path, 6)
	if len(five) != 1 || five[0].Goroutines != 7 || five[0].HeapKiB != 4 || len(six) != 1 || six[0].Goroutines != 9 {
		t.Errorf("%+v %+v", five, six)
	}
}

// TestReadLog: a line that is being written is left out, a broken one before it
// is named.
func TestReadLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log.jsonl")
	for text, want := range map[string]string{
		"{\"step\":1}\n{\"event\":\"round\"}\n{\"st": "",
		"{\"step\":1}\n{\"st\n{\"step\":2}\n":        "line 2",
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		lines, err := readLog(path)
		if want == "" && (err != nil || len(lines) != 2) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %d lines, %v", text, len(lines), err)
		}
	}
}

// TestTail: what is read while it is written has each line once, also when it becomes
// a segment meanwhile.
func TestTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log.jsonl")
	log := tail{path: path}
	put := func(text string) {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	for i, text := range []string{"{\"step\":1}\n{\"st", "ep\":2}\n", "", "{\"step\":3}\n{\"step\":4}\n"} {
		if i == 3 {
			if err := os.Rename(path, filepath.Join(filepath.Dir(path), "log.000001.jsonl")); err != nil {
				t.Fatal(err)
			}
		}
		put(text)
		if err := log.read(); err != nil {
			t.Fatal(err)
		}
	}
	for i, l := range log.lines {
		if l.Step != int64(i+1) {
			t.Errorf("line %d is of step %d", i+1, l.Step)
		}
	}
	if len(log.lines) != 4 {
		t.Errorf("%d lines", len(log.lines))
	}
}

// TestNext: a commit of the round that the victim was in does not count.
func TestNext(t *testing.T) {
	at := time.Unix(1000, 0)
	steps := []line{
		{Step: 1, Round: 4, Time: at.Add(-time.Second)},
		{Step: 2, Round: 4, Time: at.Add(time.Millisecond)},
	}
	if i := next(steps, at); i != -1 {
		t.Errorf("the round's own commit counts: %d", i)
	}
	steps = append(steps, line{Step: 3, Round: 5, World: 3, Time: at.Add(2 * time.Millisecond)})
	if i := next(steps, at); i != -1 {
		t.Errorf("a commit with the victim counts: %d", i)
	}
	if i := next(append(steps, line{Step: 4, Round: 6, World: 2, Time: at.Add(time.Second)}), at); i != 3 {
		t.Errorf("the next round's commit is step %d", i)
	}
}
