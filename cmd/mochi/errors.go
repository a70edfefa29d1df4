package main

import (
	"errors"
	"fmt"
)

// usageError is an error of the command line or the configuration: nothing
// was started.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// errInterrupted is an orderly stop after Ctrl-C.
var errInterrupted = errors.New("interrupted")

// errHelp is returned after help was printed.
var errHelp = errors.New("help")
