package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// Program is all commands and what mochi --help says.
type Program struct {
	About    string // the first line of its help
	Example  string // a command line
	Sections []Section
}

// Section is commands that help lists together.
type Section struct {
	Title    string
	Commands []*Command
}

// Commands lists those of all sections.
func (p Program) Commands() (all []*Command) {
	for _, s := range p.Sections {
		all = append(all, s.Commands...)
	}
	return all
}

// Execute runs the command that args name. Wrong usage is a UsageError; nil is
// also what help ends with.
func (p Program) Execute(args []string, out, errs io.Writer) error {
	root := p.tree(out, errs)
	if len(args) > 0 && (args[0] == "--version" || args[0] == "-V" || args[0] == "-version") {
		args = slices.Concat([]string{"version"}, args[1:])
	}
	if len(args) > 0 && strings.HasPrefix(args[0], "-") && !asksForHelp(args[0]) {
		return Usagef("unknown command %q: flags follow the command (mochi --help lists the commands)", args[0])
	}
	if found, _, err := root.Find(args); err == nil && found.HasParent() {
		words := strings.Fields(found.CommandPath())[1:]
		if !slices.Equal(args[:len(words)], words) { // eval --k 5 knn
			return Usagef("%s: its flags follow it (mochi %s --help lists them)", strings.Join(words, " "), strings.Join(words, " "))
		}
		given, help := longFlags(found.Flags(), args)
		if help {
			if c := p.named(words); c != nil {
				c.helpOf(presetAmong(args))
			}
			given = append(words, "--help")
		}
		args = given
	} else if len(args) > 0 && asksForHelp(args[0]) {
		args = []string{"--help"}
	}
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(errs)
	return root.Execute()
}

// named is the command of these words, nil for none.
func (p Program) named(words []string) *Command {
	for _, c := range p.Commands() {
		if slices.Equal(c.words, words) {
			return c
		}
	}
	return nil
}

// tree builds the commands of package cobra: those of two words below one that
// only names them.
func (p Program) tree(out, errs io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use: "mochi", Short: p.About, SilenceErrors: true, SilenceUsage: true, Args: cobra.ArbitraryArgs,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.SetHelpFunc(func(*cobra.Command, []string) { p.help(out) })
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return Usagef("%s: %v (mochi --help lists the commands)", c.CommandPath(), err)
	})
	root.SetHelpCommand(p.helpCommand(root))
	root.RunE = func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			p.help(errs)
			return Usagef("which command? (mochi --help lists them)")
		}
		return Usagef("unknown command %q%s (mochi --help lists them)", args[0], suggestion(root, args[0]))
	}
	words := settingWords()
	groups := map[string]*cobra.Command{}
	for _, c := range p.Commands() {
		parent := root
		if len(c.words) > 1 {
			if groups[c.words[0]] == nil {
				groups[c.words[0]] = p.group(c.words[0], out)
				root.AddCommand(groups[c.words[0]])
			}
			parent = groups[c.words[0]]
		}
		parent.AddCommand(c.into(out, errs, words))
	}
	return root
}

// group is what commands of two words begin with.
func (p Program) group(word string, out io.Writer) *cobra.Command {
	var members []*Command
	var names, last []string
	for _, c := range p.Commands() {
		if len(c.words) > 1 && c.words[0] == word {
			members, names, last = append(members, c), append(names, "mochi "+c.Name()), append(last, c.words[1])
		}
	}
	g := &cobra.Command{
		Use: word, Short: strings.Join(last, ", "), Args: cobra.ArbitraryArgs,
		FParseErrWhitelist: cobra.FParseErrWhitelist{UnknownFlags: true}, // what is wrong is the word
	}
	g.RunE = func(_ *cobra.Command, args []string) error {
		hint := ""
		if len(args) > 0 {
			hint = suggestion(g, args[0])
		}
		return Usagef("%s needs one of: %s%s", word, strings.Join(names, ", "), hint)
	}
	g.SetHelpFunc(func(*cobra.Command, []string) {
		fmt.Fprintln(out, "One of:")
		list(out, "mochi ", members)
	})
	return g
}

// helpCommand is "mochi help COMMAND", another way to say mochi COMMAND --help.
func (p Program) helpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use: "help", Hidden: true, DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			words := slices.DeleteFunc(slices.Clone(args), func(w string) bool { return strings.HasPrefix(w, "-") })
			found, rest, err := root.Find(words)
			if err != nil || len(rest) > 0 {
				return Usagef("help: unknown command %q (mochi --help lists them)", strings.Join(words, " "))
			}
			return found.Help()
		},
	}
}

// suggestion proposes a command for a misspelt one.
func suggestion(parent *cobra.Command, word string) string {
	if word == "" {
		return ""
	}
	if parent.SuggestionsMinimumDistance <= 0 {
		parent.SuggestionsMinimumDistance = 2
	}
	near := parent.SuggestionsFor(word)
	if len(near) == 0 {
		return ""
	}
	for i := range near {
		near[i] = strings.TrimSpace(parent.CommandPath() + " " + near[i])
	}
	slices.Sort(near)
	return "; did you mean " + strings.Join(near, " or ") + "?"
}
