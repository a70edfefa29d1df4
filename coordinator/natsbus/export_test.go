package natsbus

import "time"

// Clocked are o with a clock of the test's, by which a flood is told from a hurry.
func Clocked(o Options, now func() time.Time) Options {
	o.now = now
	return o
}
