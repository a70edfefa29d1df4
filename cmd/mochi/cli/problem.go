package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"mochi/coordinator/protocol/config"
)

// problem is an error of package pflag in the words of this program.
func (c *Command) problem(err error) string {
	var unknown *pflag.NotExistError
	var bare *pflag.ValueRequiredError
	var bad *pflag.InvalidValueError
	switch {
	case errors.As(err, &unknown):
		name := unknown.GetSpecifiedName()
		if all := unknown.GetSpecifiedShortnames(); all != "" { // -bogus
			name, _, _ = strings.Cut(all, "=")
		}
		return "unknown flag --" + name + c.similar(name)
	case errors.As(err, &bare):
		return "--" + bare.GetSpecifiedName() + " needs a value"
	case errors.As(err, &bad):
		return fmt.Sprintf("--%s: invalid value %q: %s", bad.GetFlag().Name, bad.GetValue(), whyInvalid(bad))
	}
	return err.Error()
}

// whyInvalid says what is wrong with a flag's value.
func whyInvalid(err *pflag.InvalidValueError) string {
	if f := err.GetFlag(); wanted(f) != "" {
		return "not " + wanted(f)
	}
	return err.Unwrap().Error()
}

// wanted says what the value of a flag of a basic type is, "" for others: those
// say themselves what is wrong.
func wanted(f *pflag.Flag) string {
	switch f.Value.Type() {
	case "int", "int64", "uint64":
		return "a whole number"
	case "float64":
		return "a number"
	case "duration":
		return "a duration, such as 30s"
	case "bool":
		return "true or false"
	}
	return ""
}

// similar proposes a flag for a misspelt one: the same letters, one that begins
// or goes on alike, or the nearest.
func (c *Command) similar(name string) (hint string) {
	letters := func(s string) string { return strings.NewReplacer("-", "", "_", "").Replace(strings.ToLower(s)) }
	var names []string
	c.VisitAll(func(f *pflag.Flag) {
		names = append(names, f.Name)
		a, b := letters(name), letters(f.Name)
		if hint == "" && len(a) > 2 && (strings.HasPrefix(a, b) || strings.HasPrefix(b, a)) {
			hint = f.Name
		}
	})
	if hint == "" {
		hint = config.Nearest(name, names)
	}
	if hint == "" {
		return ""
	}
	return "; did you mean --" + hint + "?"
}
