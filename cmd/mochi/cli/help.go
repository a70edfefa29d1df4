package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"
)

// help prints the commands and the example.
func (p Program) help(out io.Writer) {
	fmt.Fprintf(out, "%s\n\nUsage: mochi COMMAND [flags]     (mochi COMMAND --help explains one, with an example)\n", p.About)
	for _, s := range p.Sections {
		fmt.Fprintf(out, "\n%s:\n", s.Title)
		list(out, "", s.Commands)
	}
	fmt.Fprintf(out, "\nExample:\n  %s\n", p.Example)
}

// list prints a line a command; prefix stands before its name.
func list(out io.Writer, prefix string, commands []*Command) {
	width := 16
	for _, c := range commands {
		width = max(width, len(prefix+c.Name()))
	}
	for _, c := range commands {
		fmt.Fprintf(out, "  %-*s %s\n", width, prefix+c.Name(), c.short)
	}
}

// help prints what the command does, its flags in groups, and the example.
func (c *Command) help(out io.Writer) {
	fmt.Fprintf(out, "mochi %s: %s\n", strings.Join(append([]string{c.Name()}, c.arguments...), " "), c.about)
	headings := c.headings
	if len(headings) == 0 || headings[0].first > 0 {
		headings = append([]heading{{0, "Flags"}}, headings...)
	}
	n := 0
	c.VisitAll(func(f *pflag.Flag) {
		for len(headings) > 0 && headings[0].first <= n {
			if len(headings) == 1 || headings[1].first > n { // not one without flags
				fmt.Fprintf(out, "\n%s:\n", headings[0].text)
			}
			headings = headings[1:]
		}
		n++
		fmt.Fprintf(out, "  %-24s %s\n", strings.TrimSpace("--"+f.Name+" "+kind(f)), usage(f))
	})
	fmt.Fprintf(out, "\nExample:\n  %s\n", strings.ReplaceAll(c.example, "\n", "\n  "))
}

// usage is what a flag is, and its default where that says something.
func usage(f *pflag.Flag) string {
	text := f.Usage
	if d := f.DefValue; d != "" && d != "false" && d != "0" && d != "0s" && d != "-1" {
		text += " (default " + d + ")"
	}
	return text
}

// kindKey is where a flag's annotations keep its kind.
const kindKey = "mochi_kind"

// unquote takes the back-quoted word out of a flag's usage and notes it as its
// kind, so that help and completion show plain text.
func unquote(f *pflag.Flag) {
	name := kind(f)
	_, text := pflag.UnquoteUsage(f)
	f.Usage = strings.TrimPrefix(text, name+": ")
	f.Annotations = map[string][]string{kindKey: {name}}
}

// kind is the placeholder of a flag's value: the back-quoted word of its
// usage, else its type's; "" for a switch.
func kind(f *pflag.Flag) string {
	if noted := f.Annotations[kindKey]; noted != nil {
		return noted[0]
	}
	name, _ := pflag.UnquoteUsage(f)
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
