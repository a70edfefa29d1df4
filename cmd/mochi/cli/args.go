package cli

import (
	"strings"

	"github.com/spf13/pflag"
)

// asksForHelp says whether an argument does, however it is written.
func asksForHelp(arg string) bool {
	name, _, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
	return strings.HasPrefix(arg, "-") && (name == "help" || name == "h")
}

// longFlags gives the flags among args that are written with one dash the
// second: "-batch 32" is taken for "--batch 32". The values of flags stay as
// they are, and so does what is no flag of fs. Where help is asked for before
// anything is wrong, nothing else counts: help is true.
func longFlags(fs *pflag.FlagSet, args []string) (list []string, help bool) {
	value, unknown := false, false // the argument is the value of the flag before it; one is no flag of fs
	for i, arg := range args {
		if arg == "--" && !value {
			return append(list, args[i:]...), false
		}
		name, _, joined := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		f := fs.Lookup(name)
		switch {
		case value:
			value = false
		case f == nil && !unknown && asksForHelp(arg):
			return nil, true
		case f == nil || !strings.HasPrefix(arg, "-"):
			unknown = unknown || strings.HasPrefix(arg, "-")
		default:
			if !strings.HasPrefix(arg, "--") {
				arg = "-" + arg
			}
			value = !joined && f.NoOptDefVal == ""
		}
		list = append(list, arg)
	}
	return list, false
}
