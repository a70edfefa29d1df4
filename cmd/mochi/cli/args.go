package cli

import (
	"strings"

	"github.com/spf13/pflag"
)

// longFlags gives the flags among args that are written with one dash the
// second: "-batch 32" is taken for "--batch 32". The values of flags stay as
// they are, and so does what is no flag of fs.
func longFlags(fs *pflag.FlagSet, args []string) []string {
	var list []string
	value := false // the argument is the value of the flag before it
	for i, arg := range args {
		if arg == "--" && !value {
			return append(list, args[i:]...)
		}
		name, _, joined := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		f := fs.Lookup(name)
		switch {
		case value:
			value = false
		case f == nil || !strings.HasPrefix(arg, "-"):
		default:
			if !strings.HasPrefix(arg, "--") {
				arg = "-" + arg
			}
			value = !joined && f.NoOptDefVal == ""
		}
		list = append(list, arg)
	}
	return list
}
