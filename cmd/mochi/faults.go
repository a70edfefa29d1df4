package main

import (
	"errors"
	"fmt"

	"mochi/coordinator/protocol/config"
)

// faults collects all that is wrong with a command line, so that it can be
// said at once and before anything is started or written.
type faults struct{ list config.Faults }

func (f *faults) add(field, format string, args ...any) {
	f.list = append(f.list, config.Fault{Field: field, Problem: fmt.Sprintf(format, args...)})
}

// addErr adds the faults of a configuration, or err as a fault of field.
func (f *faults) addErr(field string, err error) {
	var more config.Faults
	if errors.As(err, &more) {
		f.list = append(f.list, more...)
	} else if err != nil {
		f.add(field, "%v", err)
	}
}

// err is nil without a fault, else a usage error.
func (f *faults) err() error {
	if len(f.list) == 0 {
		return nil
	}
	return usageError{f.list}
}

// atLeast checks a number.
func (f *faults) atLeast(least int, field string, value int) {
	if value < least {
		f.add(field, "is %d, must be at least %d", value, least)
	}
}
