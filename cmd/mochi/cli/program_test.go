package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"mochi/coordinator/protocol/config"
)

// sample is a program of three commands; what they are given goes to out.
func sample() Program {
	one := NewCommand("go PLACE", Text{Short: "go there", Example: "mochi go home --fast"})
	fast := one.Bool("fast", false, "do not look around")
	one.Group("Limits")
	n := one.Int("speed-limit", 50, "`KMH` at most")
	k := one.Float64("k", 0.5, "how much")
	wait := one.Duration("wait", time.Second, "before")
	one.Complete("wait", "1s", "5s")
	one.Run = func(args []string, out, _ io.Writer) error {
		fmt.Fprintln(out, args, *fast, *n, *k, *wait)
		return nil
	}
	two := NewCommand("data look", Text{Short: "look", Example: "mochi data look"})
	training := AddTraining(two, func(name string) bool { return name != "seed" })
	two.Run = func(_ []string, out, _ io.Writer) error {
		var f Faults
		c := training.Job(two, &f, func(*config.Job) {})
		if done, err := training.Printed(out, c, &f); done {
			return err
		}
		fmt.Fprintln(out, c.Arch, c.Oracle, c.MoCHi)
		return f.Err()
	}
	return Program{About: "A sample.", Example: "mochi go home", Sections: []Section{
		{Title: "All", Commands: []*Command{one, two, NewCompletion()}},
	}}
}

func execute(args ...string) (out, errs string, err error) {
	var o, e bytes.Buffer
	err = sample().Execute(args, &o, &e)
	return o.String(), e.String(), err
}

// Flags stand before, among or after the arguments, with two dashes or one; the
// values of flags are left alone.
func TestArguments(t *testing.T) {
	for _, c := range []struct {
		args, want string
	}{
		{"go home", "[home] false 50 0.5 1s"},
		{"go --fast home --speed-limit 30", "[home] true 30 0.5 1s"},
		{"go -fast home -speed-limit=30 -k 2 -wait 5s", "[home] true 30 2 5s"},
		{"go -fast=false -k -2 home", "[home] false 50 -2 1s"},
		{"go --k 1 --k 3 -- -fast", "[-fast] false 50 3 1s"},
		{"data look -arch resnet8 -oracle --mochi 0,0,0", "resnet8 true 0,0,0"},
		{"data look --oracle=false --arch=resnet18", "resnet18 false 1024,1024,128"},
	} {
		out, errs, err := execute(strings.Fields(c.args)...)
		if err != nil || errs != "" || strings.TrimSpace(out) != c.want {
			t.Errorf("%s: %q, %q, %v", c.args, out, errs, err)
		}
	}
}

// What is wrong is a usage error that says what to do; stdout stays empty.
func TestUsageErrors(t *testing.T) {
	for args, want := range map[string]string{
		"":                        "which command?",
		"gp home":                 `unknown command "gp"; did you mean mochi go?`,
		"zzz":                     `unknown command "zzz" (mochi --help`,
		"--fast":                  `unknown command "--fast"`,
		"data":                    "data needs one of: mochi data look",
		"data loko --x 3":         "did you mean mochi data look?",
		"go":                      "go: PLACE is missing",
		"go a b":                  `go: stray argument "b"`,
		"go a --fsat":             "unknown flag --fsat; did you mean --fast?",
		"go a --speed_limit 3":    "unknown flag --speed_limit; did you mean --speed-limit?",
		"go a -bogus":             "unknown flag --bogus (",
		"go a --k":                "--k needs a value",
		"go a --speed-limit x":    `--speed-limit: invalid value "x": not a whole number`,
		"go a -k x":               `--k: invalid value "x": not a number`,
		"go a --wait 3":           "not a duration, such as 30s",
		"go a --fast=perhaps":     `--fast: invalid value "perhaps": not true or false`,
		"data look --seed 3":      "unknown flag --seed",
		"completion csh":          `"csh" is not known; there are bash, zsh, fish`,
		"data look --preset dmeo": "did you mean demo?",
	} {
		out, _, err := execute(strings.Fields(args)...)
		var usage UsageError
		if !errors.As(err, &usage) || !strings.Contains(err.Error(), want) || args != "data look --preset dmeo" && out != "" {
			t.Errorf("mochi %s: %v, want %q; stdout %q", args, err, want, out)
		}
	}
}

func TestHelp(t *testing.T) {
	const want = `mochi go PLACE: go there

Flags:
  --fast                   do not look around

Limits:
  --speed-limit KMH        KMH at most (default 50)
  --k x                    how much (default 0.5)
  --wait DURATION          before (default 1s)

Example:
  mochi go home --fast
`
	for _, args := range [][]string{{"go", "--help"}, {"go", "-h"}, {"go", "home", "--fast", "--help"}, {"help", "go"}} {
		if out, _, err := execute(args...); err != nil || out != want {
			t.Errorf("%q: %v\n%s", args, err, out)
		}
	}
	for _, args := range [][]string{{"--help"}, {"-h"}, {"help"}} {
		if out, _, err := execute(args...); err != nil || !strings.Contains(out, "\nAll:\n  go               go there\n") {
			t.Errorf("%q: %v\n%s", args, err, out)
		}
	}
}

// Completion knows commands, flags, and the values of flags and settings.
func TestCompletion(t *testing.T) {
	for args, want := range map[string][]string{
		"":                            {"go", "data", "completion"},
		"data ":                       {"look"},
		"go --s":                      {"--speed-limit"},
		"go home --wait ":             {"1s", "5s"},
		"data look --preset ":         config.Presets(),
		"data look --head ":           {"linear", "mlp"},
		"data look --queue-storage b": {"bf16"},
		"completion ":                 {"bash", "zsh", "fish"},
	} {
		list := strings.Split(args, " ")
		out, _, err := execute(append([]string{"__complete"}, list...)...)
		var got []string
		for line := range strings.Lines(out) {
			word, _, _ := strings.Cut(strings.TrimSpace(line), "\t")
			if word != "" && word[0] != ':' {
				got = append(got, word)
			}
		}
		for _, w := range want {
			if err != nil || !slices.Contains(got, w) {
				t.Errorf("%q: %q lacks %s (%v)", args, got, w, err)
			}
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if out, _, err := execute("completion", shell); err != nil || !strings.Contains(out, "mochi") {
			t.Errorf("%s: %v, %d bytes", shell, err, len(out))
		}
	}
}

// The settings of the help are exactly those of a job.
func TestSettingsAreTheKeys(t *testing.T) {
	c := NewCommand("train", Text{})
	AddTraining(c, func(string) bool { return true })
	for _, s := range config.Settings() {
		if c.Lookup(s.Name) == nil {
			t.Errorf("no flag --%s", s.Name)
		}
	}
}

// Help is asked for in any of the usual ways, before anything is wrong; words
// that are no command, and flags before one, are wrong usage.
func TestHelpAndWrongWords(t *testing.T) {
	for _, args := range []string{
		"go --help", "go -help", "go -h", "go --h", "go home -help --bogus", "go --help=false", "data look -help", "help go", "help --json", "help",
	} {
		if out, _, err := execute(strings.Fields(args)...); err != nil || !strings.Contains(out, "mochi") {
			t.Errorf("%s: %v\n%s", args, err, out)
		}
	}
	for args, want := range map[string]string{
		"go --bogus --help": "unknown flag --bogus", "go -bo=3 home": "unknown flag --bo", "go -n 3": "unknown flag --n",
		"--version": `unknown command "version"`, "--json data look": `unknown command "--json"`, "-hx": `unknown command "-hx"`,
		"data --arch x look": "flags follow", "data --bogus": "needs one of", "help nowhere": `unknown command "nowhere"`,
	} {
		_, _, err := execute(strings.Fields(args)...)
		var usage UsageError
		if !errors.As(err, &usage) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "mean --k?") {
			t.Errorf("%s: %v, want %q", args, err, want)
		}
	}
	if _, _, err := execute(""); err == nil || strings.Contains(err.Error(), "did you mean") {
		t.Errorf("an empty word: %v", err)
	}
}

// Help tells the defaults of the preset that is asked for, and the general ones without.
func TestHelpOfAPreset(t *testing.T) {
	of := func(args ...string) string {
		out, _, err := execute(args...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for _, name := range config.Presets() {
		p, err := config.Preset(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"data", "look", "--preset", name, "--help"}, {"data", "look", "-preset=" + name, "-h"}} {
			help := of(args...)
			for _, want := range []string{
				"those of --preset " + name, fmt.Sprintf("(default %s)", p.Arch), fmt.Sprintf("(default %s)", p.MoCHi), fmt.Sprintf("(default %d)", p.Queue),
			} {
				if !strings.Contains(help, want) {
					t.Errorf("%q does not say %q:\n%s", args, want, help)
				}
			}
		}
	}
	if plain := of("data", "look", "--help"); strings.Contains(plain, "those of --preset") || of("data", "look", "--preset", "none", "--help") != plain {
		t.Error("help without a preset, or with an unknown one, is not the general one")
	}
}

// What other trainers call a setting leads to its name here, where there is one.
func TestForeignFlags(t *testing.T) {
	for given, want := range map[string]string{"--learning-rate": "--lr", "--batch_size": "--batch", "--Moco-K": "--queue", "--backbone": "--arch"} {
		if _, _, err := execute("data", "look", given, "1"); err == nil || !strings.HasSuffix(strings.Split(err.Error(), " (")[0], "did you mean "+want+"?") {
			t.Errorf("%s: %v", given, err)
		}
	}
	if _, _, err := execute("go", "home", "--learning-rate", "1"); err == nil || strings.Contains(err.Error(), "--lr") {
		t.Errorf("of a command that has no such setting: %v", err)
	}
	known := map[string]bool{ // flags of commands that are no settings
		"data": true, "out": true, "workers": true, "replicas": true, "device": true, "resume": true, "init": true, "k": true, "checkpoint": true,
	}
	for _, s := range config.Settings() {
		known[s.Name] = true
	}
	for foreign, own := range foreignFlags {
		if !known[own] || known[foreign] {
			t.Errorf("%s: %s", foreign, own)
		}
	}
}

// --print-config writes what --config reads, and nothing where something is wrong.
func TestPrintConfig(t *testing.T) {
	out, _, err := execute("data", "look", "--preset", "demo", "--lr", "0.5", "--print-config")
	if err != nil {
		t.Fatal(err)
	}
	got, err := config.Parse([]byte(out))
	want, _ := config.Preset("demo")
	if want.LR = 0.5; err != nil || got.Digest() != want.Digest() || got.LR != 0.5 || got.Preset != "demo" {
		t.Errorf("%v: %v", err, out)
	}
	if out, _, err := execute("data", "look", "--print-config", "--lr", "much"); err == nil || out != "" {
		t.Errorf("with a fault: %v, %q", err, out)
	}
}
