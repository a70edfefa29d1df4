package cli

import (
	"errors"
	"fmt"
)

// UsageError is an error of the command line or the configuration: nothing
// was started.
type UsageError struct{ Err error }

// Error is that of the wrapped error, which says all.
func (e UsageError) Error() string { return e.Err.Error() }

// Unwrap is the wrapped error.
func (e UsageError) Unwrap() error { return e.Err }

// Usagef is fmt.Errorf for a usage error.
func Usagef(format string, args ...any) error { return UsageError{fmt.Errorf(format, args...)} }

// ErrInterrupted is an orderly stop after Ctrl-C.
var ErrInterrupted = errors.New("interrupted")
