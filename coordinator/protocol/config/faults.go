package config

import (
	"fmt"
	"strings"
)

// Fault is one thing wrong with a configuration.
type Fault struct {
	Field   string // the flag's and YAML key's name
	Problem string // what is wrong and what to do
}

func (f Fault) String() string { return f.Field + ": " + f.Problem }

// Faults is every fault of a configuration, an error when there is one.
type Faults []Fault

// Error lists all faults, one a line.
func (fs Faults) Error() string {
	if len(fs) == 1 {
		return "configuration: " + fs[0].String()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "configuration: %d faults", len(fs))
	for _, f := range fs {
		b.WriteString("\n  " + f.String())
	}
	return b.String()
}

// err is nil when there is no fault.
func (fs Faults) err() error {
	if len(fs) == 0 {
		return nil
	}
	return fs
}

func (fs *Faults) add(field, format string, args ...any) {
	*fs = append(*fs, Fault{field, fmt.Sprintf(format, args...)})
}
