package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"mochi/coordinator/protocol/config"
	"mochi/model/limits"
)

// Faults collects all that is wrong with a command line, so that it can be
// said at once and before anything is started or written.
type Faults struct{ List config.Faults }

// Add adds a fault of a flag or setting.
func (f *Faults) Add(field, format string, args ...any) {
	f.List = append(f.List, config.Fault{Field: field, Problem: fmt.Sprintf(format, args...)})
}

// AddErr adds the faults of a configuration, or err as a fault of field.
func (f *Faults) AddErr(field string, err error) {
	var more config.Faults
	if errors.As(err, &more) {
		f.List = append(f.List, more...)
	} else if err != nil {
		f.Add(field, "%v", err)
	}
}

// Err is nil without a fault, else a usage error.
func (f *Faults) Err() error {
	if len(f.List) == 0 {
		return nil
	}
	return UsageError{Err: f.List}
}

// OneOf checks a word.
func (f *Faults) OneOf(field, value string, words ...string) {
	if !slices.Contains(words, value) {
		f.Add(field, "%q is not known; there are %s", value, strings.Join(words, ", "))
	}
}

// AtLeast checks a number.
func (f *Faults) AtLeast(least int, field string, value int) {
	limits.AtLeast(least).Whole(field, int64(value), f.Add)
}
