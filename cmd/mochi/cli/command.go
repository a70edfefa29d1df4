// Package cli is what the subcommands share on the command line: commands, their
// flags and their help, the job's settings from flags, a file and a preset,
// faults that are all told at once, opening --data, and the words and the JSON
// of answers. It starts nothing and writes nothing but what it is given to write
// to. Parsing, suggestions for commands and the completion of shells are
// github.com/spf13/cobra's.
package cli

import (
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Command is a subcommand: its flags, what its help says, and what it does.
// Flags are declared on it; Run is set before a Program takes it.
type Command struct {
	*pflag.FlagSet

	// Run does it. args are the values of the arguments, those without a flag.
	Run func(args []string, out, errs io.Writer) error

	words     []string          // "data", "pack"
	arguments []string          // "DIR", "OUT"
	instead   map[string]string // argument → the flag that it may be given as
	values    []string          // that an argument may be; nil: files
	short     string
	about     string
	example   string
	headings  []heading
	complete  map[string][]string // the words that a flag may be
	cobra     *cobra.Command      // of the Program that took it
	training  *Training           // its settings of a job; nil: it has none
}

// heading is where a group of flags begins in help.
type heading struct {
	first int // flags declared before it
	text  string
}

// Text is what help says of a command.
type Text struct {
	Short   string // a line in the list of commands
	About   string // the first line of its own help; "" = Short
	Example string // one or more full command lines
}

// NewCommand makes a command. use is its name, one or two words, and the
// arguments that it needs, in capitals: "data pack DIR OUT".
func NewCommand(use string, text Text) *Command {
	c := &Command{short: text.Short, about: text.About, example: text.Example, complete: map[string][]string{}}
	if c.about == "" {
		c.about = c.short
	}
	for _, word := range strings.Fields(use) {
		if word == strings.ToUpper(word) {
			c.arguments = append(c.arguments, word)
		} else {
			c.words = append(c.words, word)
		}
	}
	c.FlagSet = pflag.NewFlagSet(c.Name(), pflag.ContinueOnError)
	c.SortFlags = false
	return c
}

// Name is the command's name: "data pack".
func (c *Command) Name() string { return strings.Join(c.words, " ") }

// Group gives the flags that are declared next a heading in help.
func (c *Command) Group(text string) {
	n := 0
	c.VisitAll(func(*pflag.Flag) { n++ })
	c.headings = append(c.headings, heading{n, text})
}

// Complete says which words a flag may be, for the completion of a shell. One
// that is called like a setting needs it only where it may be others.
func (c *Command) Complete(flag string, words ...string) { c.complete[flag] = words }

// Given says whether a flag was set, on the command line or by --config.
func (c *Command) Given(name string) bool { return c.Changed(name) }

// into makes the command of package cobra, whose output is out and errs. words
// are those that settings may be.
func (c *Command) into(out, errs io.Writer, words map[string][]string) *cobra.Command {
	c.cobra = &cobra.Command{
		Use: c.words[len(c.words)-1], Short: c.short,
		Args: func(_ *cobra.Command, args []string) error { return c.count(args) },
		RunE: func(_ *cobra.Command, args []string) error { return c.Run(c.fill(args), out, errs) },
	}
	switch {
	case len(c.arguments) == 0:
		c.cobra.ValidArgsFunction = cobra.NoFileCompletions
	case c.values != nil:
		c.cobra.ValidArgsFunction = cobra.FixedCompletions(c.values, cobra.ShellCompDirectiveNoFileComp)
	}
	c.cobra.Flags().SortFlags = false
	c.cobra.Flags().AddFlagSet(c.FlagSet)
	c.cobra.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return Usagef("%s: %s (mochi %s --help lists the flags)", c.Name(), c.problem(err), c.Name())
	})
	c.cobra.SetHelpFunc(func(*cobra.Command, []string) { c.help(out) })
	c.VisitAll(func(f *pflag.Flag) {
		unquote(f)
		values, known := c.complete[f.Name]
		if !known {
			values = words[f.Name]
		}
		directive := cobra.ShellCompDirectiveNoFileComp
		if slices.Contains([]string{"FILE", "DIR", "PATH", "RUN"}, kind(f)) {
			directive = cobra.ShellCompDirectiveDefault // file names too
		}
		// It fails only for a flag that is not there.
		_ = c.cobra.RegisterFlagCompletionFunc(f.Name, cobra.FixedCompletions(values, directive))
	})
	return c.cobra
}

// Instead lets an argument be given as a flag: Run is given "" in its place then.
func (c *Command) Instead(argument, flag string) {
	if c.instead == nil {
		c.instead = make(map[string]string)
	}
	c.instead[argument] = flag
}

// flagged says whether an argument is given as a flag.
func (c *Command) flagged(argument string) bool {
	flag, may := c.instead[argument]
	return may && c.Given(flag)
}

// count checks the number of arguments.
func (c *Command) count(args []string) error {
	wanted := slices.DeleteFunc(slices.Clone(c.arguments), c.flagged)
	if n := len(wanted); len(args) < n {
		return Usagef("%s: %s is missing (mochi %s --help)", c.Name(), strings.Join(wanted[len(args):], " and "), c.Name())
	} else if len(args) > n {
		return Usagef("%s: stray argument %q (mochi %s --help)", c.Name(), args[n], c.Name())
	}
	return nil
}

// fill is args with "" for each argument that is given as a flag.
func (c *Command) fill(args []string) []string {
	if len(c.instead) == 0 {
		return args
	}
	var all []string
	for _, argument := range c.arguments {
		if c.flagged(argument) {
			all = append(all, "")
		} else {
			all, args = append(all, args[0]), args[1:]
		}
	}
	return all
}
