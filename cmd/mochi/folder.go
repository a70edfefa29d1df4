package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// private lets a coordinator's files be its user's alone: what is made from here on, and
// the folder of the run. One that others can write is refused, since whoever writes there
// decides what the job is.
func private(state string) error {
	unix.Umask(0o077)
	info, err := os.Stat(state)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it is made for its user alone
	}
	if err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return fmt.Errorf("others can write into %s (mode %04o), and so change what the job is: chmod 700 it, or choose another folder", state, mode)
	}
	if info.Mode().Perm()&0o055 != 0 {
		_ = os.Chmod(state, info.Mode().Perm()&0o700) // another's, such as a volume: its keys are for their user alone in any case
	}
	return nil
}
