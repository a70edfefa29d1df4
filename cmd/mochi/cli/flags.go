// Package cli is what the subcommands share on the command line: flags and
// their help, the job's settings from flags, a file and a preset, faults that
// are all told at once, opening --data, and the words and the JSON of answers.
// It starts nothing and writes nothing but what it is given to write to.
package cli

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
)

// FlagSet is the flags of a subcommand and what its --help says.
type FlagSet struct {
	*flag.FlagSet
	about, example string
	out            io.Writer
	settings       []string // flags that are keys of config.yaml, in the order of their help
}

// NewFlags makes the flag set of a subcommand. about says in a line what it
// does; example is one or more full command lines.
func NewFlags(name, about, example string, out io.Writer) *FlagSet {
	fs := &FlagSet{FlagSet: flag.NewFlagSet(name, flag.ContinueOnError), about: about, example: example, out: out}
	fs.SetOutput(io.Discard)
	fs.Usage = func() {} // parse decides what is printed, and where
	return fs
}

// ReadArgs reads args; faults are usage errors. arguments names those expected
// without a flag, and their values are returned. They may stand before, among
// or after the flags: mochi diff A B --json.
func (fs *FlagSet) ReadArgs(args []string, arguments ...string) ([]string, error) {
	var rest []string
	for {
		err := fs.Parse(args)
		if errors.Is(err, flag.ErrHelp) {
			fs.help()
			return nil, ErrHelp
		}
		if err != nil {
			return nil, Usagef("%s: %s (mochi %s --help lists the flags)", fs.Name(), fs.problem(err), fs.Name())
		}
		if fs.NArg() == 0 {
			break
		}
		rest, args = append(rest, fs.Arg(0)), fs.Args()[1:]
	}
	if n := len(arguments); len(rest) < n {
		return nil, Usagef("%s: %s is missing (mochi %s --help)", fs.Name(), strings.Join(arguments[len(rest):], " and "), fs.Name())
	} else if len(rest) > n {
		return nil, Usagef("%s: stray argument %q (mochi %s --help)", fs.Name(), rest[n], fs.Name())
	}
	return rest, nil
}

// Given says whether a flag was set, on the command line or by --config.
func (fs *FlagSet) Given(name string) (given bool) {
	fs.Visit(func(f *flag.Flag) { given = given || f.Name == name })
	return given
}

// problem is an error of package flag in the spelling of this program.
func (fs *FlagSet) problem(err error) string {
	text := err.Error()
	if name, ok := strings.CutPrefix(text, "flag provided but not defined: "); ok {
		name = strings.TrimLeft(name, "-")
		return "unknown flag --" + name + fs.similar(name)
	}
	if name, ok := strings.CutPrefix(text, "flag needs an argument: "); ok {
		return "--" + strings.TrimLeft(name, "-") + " needs a value"
	}
	// invalid value "x" for flag -replicas: parse error
	// invalid boolean value "x" for -json: parse error
	what, rest, ok := strings.Cut(text, " for ")
	name, why, found := strings.Cut(strings.TrimLeft(strings.TrimPrefix(rest, "flag "), "-"), ": ")
	if f := fs.Lookup(name); ok && found && f != nil {
		if why == "parse error" || why == "value out of range" {
			why = "not " + wanted(kind(f))
		}
		return "--" + name + ": " + what + ": " + why
	}
	return text
}

// wanted says what a value of a kind is.
func wanted(kind string) string {
	switch kind {
	case "n":
		return "a whole number"
	case "x":
		return "a number"
	case "DURATION":
		return "a duration, such as 30s"
	case "":
		return "true or false"
	}
	return "a " + kind
}

// similar proposes a flag for a misspelt one: the same letters, or one that
// begins or goes on alike.
func (fs *FlagSet) similar(name string) (hint string) {
	letters := func(s string) string { return strings.NewReplacer("-", "", "_", "").Replace(strings.ToLower(s)) }
	fs.VisitAll(func(f *flag.Flag) {
		a, b := letters(name), letters(f.Name)
		if hint == "" && len(a) > 2 && (strings.HasPrefix(a, b) || strings.HasPrefix(b, a)) {
			hint = "; did you mean --" + f.Name + "?"
		}
	})
	return hint
}

// help prints about, the flags, the settings, and the example.
func (fs *FlagSet) help() {
	fmt.Fprintf(fs.out, "mochi %s: %s\n\nFlags:\n", fs.Name(), fs.about)
	fs.VisitAll(func(f *flag.Flag) {
		if !slices.Contains(fs.settings, f.Name) {
			fs.line(f)
		}
	})
	if len(fs.settings) > 0 {
		fmt.Fprint(fs.out, "\nSettings (also the keys of --config; flags win over the file, the file over --preset):\n")
	}
	for _, name := range fs.settings {
		fs.line(fs.Lookup(name))
	}
	fmt.Fprintf(fs.out, "\nExample:\n  %s\n", strings.ReplaceAll(fs.example, "\n", "\n  "))
}

func (fs *FlagSet) line(f *flag.Flag) {
	head := strings.TrimSpace("--" + f.Name + " " + kind(f))
	_, usage := flag.UnquoteUsage(f)
	usage = strings.TrimPrefix(usage, kind(f)+": ")
	if d := f.DefValue; d != "" && d != "false" && d != "0" && d != "-1" {
		usage += " (default " + d + ")"
	}
	fmt.Fprintf(fs.out, "  %-24s %s\n", head, usage)
}

// kind is the placeholder of a flag's value: the back-quoted word of its
// usage, else its type's; "" for a switch.
func kind(f *flag.Flag) string {
	name, _ := flag.UnquoteUsage(f)
	switch name {
	case "int", "uint":
		return "n"
	case "float":
		return "x"
	case "duration":
		return "DURATION"
	case "string":
		return "NAME"
	}
	return name
}
