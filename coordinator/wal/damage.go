package wal

import (
	"fmt"
	"strings"
)

// Damage is a place where files are not what was written.
type Damage struct {
	File     string
	Offset   int64  // in bytes, of the first record concerned; 0: the file as a whole
	From, To uint64 // indexes of the records that are lost; To 0: it is not known how many
	What     string
}

// String names the records, the file and the place.
func (d Damage) String() string {
	records := fmt.Sprintf("records %d to %d", d.From, d.To)
	switch {
	case d.To == 0:
		records = fmt.Sprintf("records from %d on", d.From)
	case d.From == d.To:
		records = fmt.Sprintf("record %d", d.From)
	}
	return fmt.Sprintf("%s (byte %d of %s: %s)", records, d.Offset, d.File, d.What)
}

// DamageError says which records of a log are lost.
type DamageError struct{ Damages []Damage }

// Error implements error.
func (e *DamageError) Error() string {
	var all []string
	for i, d := range e.Damages {
		if i == 3 && len(e.Damages) > 4 {
			all = append(all, fmt.Sprintf("and %d more", len(e.Damages)-i))
			break
		}
		all = append(all, d.String())
	}
	return "the log is damaged: " + strings.Join(all, "; ")
}
