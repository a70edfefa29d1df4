package cli

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"mochi/coordinator/protocol/config"
	"mochi/replica/data"
)

// Training collects the configuration from --preset, --config and
// flags: flags win over the file, the file over the preset.
type Training struct {
	preset, file string
	set          map[string]string // flags given, by YAML key
	print        bool              // --print-config
}

// settingsHeading is how the heading of the settings begins in help.
const settingsHeading = "Settings"

// AddTraining adds --preset, --config and the settings that use keeps.
func AddTraining(c *Command, use func(name string) bool) *Training {
	t := &Training{set: map[string]string{}}
	c.training = t
	c.Group(settingsHeading + " (also the keys of --config; flags win over the file, the file over --preset)")
	c.StringVar(&t.preset, "preset", "", "`NAME` of the paper's settings: "+strings.Join(config.Presets(), ", "))
	c.Complete("preset", config.Presets()...)
	c.StringVar(&t.file, "config", "", "YAML `FILE` of settings, such as a RUN's config.yaml")
	c.BoolVar(&t.print, "print-config", false, "print all settings as they would be, as a file for --config, and start nothing")
	group := ""
	for _, s := range config.Settings() {
		if !use(s.Name) {
			continue
		}
		if s.Group != group {
			group = s.Group
			c.Group(group)
		}
		usage, v := s.Help, settingValue{s, t}
		if s.Arg != "" {
			usage = fmt.Sprintf("`%s`: %s", s.Arg, withDefault(s))
		}
		f := c.VarPF(v, s.Name, "", usage)
		if s.Arg == "" {
			f.NoOptDefVal = "true"
		}
	}
	return t
}

// withDefault is what help says of a setting that has a value.
func withDefault(s config.Setting) string { return fmt.Sprintf("%s (default %s)", s.Help, s.Default) }

// helpOf has help tell the defaults of a preset. One that is not known changes nothing.
func (c *Command) helpOf(preset string) {
	p, err := config.Preset(preset)
	if c.training == nil || err != nil {
		return
	}
	for i, h := range c.headings {
		if strings.HasPrefix(h.text, settingsHeading) {
			c.headings[i].text += "; the defaults below are those of --preset " + preset
		}
	}
	for _, s := range config.SettingsOf(p) {
		if f := c.Lookup(s.Name); f != nil && s.Arg != "" {
			f.Usage = withDefault(s)
		}
	}
}

// presetAmong is the value of --preset among arguments, "" for none.
func presetAmong(args []string) string {
	for i, arg := range args {
		name, value, joined := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		switch {
		case !strings.HasPrefix(arg, "-") || name != "preset":
		case joined:
			return value
		case i+1 < len(args):
			return args[i+1]
		}
	}
	return ""
}

// Words lists what the setting of that name may be, for help: "linear, mlp".
func Words(setting string) string { return strings.Join(settingWords()[setting], ", ") }

// settingWords are the words that settings may be, by name.
func settingWords() map[string][]string {
	words := map[string][]string{}
	for _, s := range config.Settings() {
		words[s.Name] = s.Values
	}
	return words
}

// settingValue notes the text of a setting's flag, for Training.Job to read with
// all others. It implements pflag.Value.
type settingValue struct {
	config.Setting
	t *Training
}

// Set implements pflag.Value.
func (v settingValue) Set(text string) error { v.t.set[v.Name] = text; return nil }

// String implements pflag.Value.
func (v settingValue) String() string { return "" }

// Type implements pflag.Value.
func (v settingValue) Type() string {
	if v.Arg == "" {
		return "bool"
	}
	return "setting"
}

// Printed writes the settings to out where --print-config asks for that and nothing is
// wrong with them; then the command is done. done is false where nothing was asked.
func (t *Training) Printed(out io.Writer, cfg config.Job, f *Faults) (done bool, err error) {
	if !t.print {
		return false, nil
	}
	if err := f.Err(); err != nil {
		return true, err
	}
	text, err := cfg.YAML()
	if err == nil {
		_, err = out.Write(text)
	}
	return true, err
}

// Based says whether the settings stand on a preset or a file.
func (t *Training) Based() bool { return t.preset != "" || t.file != "" }

// Given says whether a setting was given as a flag.
func (t *Training) Given(name string) bool { _, is := t.set[name]; return is }

// processKeys are the keys of a --config file that belong to this process,
// not to the job: a RUN's config.yaml does not have them, a hand-written file
// may.
var processKeys = []string{"engine", "threads", "workers", "replicas", "data", "out", "device", "knn-images", "knn-k"}

// Job is the effective configuration, adjusted by the command and checked
// as a whole; what is wrong with it goes to f. The flags of c that were not
// given receive the process keys of the file.
func (t *Training) Job(c *Command, f *Faults, adjust func(c *config.Job)) config.Job {
	cfg := config.Default()
	if t.preset != "" {
		p, err := config.Preset(t.preset)
		f.AddErr("preset", err)
		if err == nil {
			cfg = p
		}
	}
	if t.file != "" {
		cfg = t.overlayFile(cfg, c, f)
	}
	for _, name := range slices.Sorted(maps.Keys(t.set)) {
		f.AddErr(name, cfg.Set(name, t.set[name]))
	}
	adjust(&cfg)
	if cfg.Classes != "" {
		list, err := data.ReadClasses(cfg.Classes)
		f.AddErr("classes", err)
		cfg.Classes = list.String()
	}
	f.AddErr("configuration", cfg.Validate())
	return cfg
}

func (t *Training) overlayFile(cfg config.Job, c *Command, f *Faults) config.Job {
	text, err := config.ReadFile(t.file)
	if err != nil {
		f.Add("config", "%v", err)
		return cfg
	}
	mine, rest, err := config.TakeKeys(text, processKeys...)
	f.AddErr("config", err)
	fileFlags(c, mine, f)
	if t.preset == "" {
		cfg, err = config.Parse(rest)
	} else {
		cfg, err = config.Overlay(cfg, rest)
		cfg.Preset = t.preset
	}
	f.AddErr("config", err)
	return cfg
}

// fileFlags sets flags from a file unless they were given.
func fileFlags(c *Command, values map[string][]string, f *Faults) {
	for _, name := range slices.Sorted(maps.Keys(values)) {
		flag := c.Lookup(name)
		_, several := valueOf(flag).(*Sources)
		switch {
		case c.Given(name):
		case flag == nil:
			f.Add(name, "not a setting of mochi %s; take it out of the file", c.Name())
		case len(values[name]) > 1 && !several:
			f.Add(name, "needs one plain value")
		default:
			for _, value := range values[name] {
				if c.Set(name, value) != nil {
					f.Add(name, "%q is not %s", value, cmp.Or(wanted(flag), "a "+kind(flag)))
				}
			}
		}
	}
}

// valueOf is what a flag sets; nil where there is none.
func valueOf(f *pflag.Flag) pflag.Value {
	if f == nil {
		return nil
	}
	return f.Value
}
