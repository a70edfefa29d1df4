package quorum

import (
	"context"

	"mochi/coordinator"
	"mochi/coordinator/protocol"
)

// Leadership is the log of the job for as long as this node leads; then what writes
// returns coordinator.ErrFenced. Whether what was being written then is in the history
// is seen by the next leader.
type Leadership struct{}

// Done is closed when this node no longer leads.
func (l *Leadership) Done() <-chan struct{} { return nil }

// Last implements coordinator.Log.
func (l *Leadership) Last(context.Context) (protocol.Commit, bool, error) {
	return protocol.Commit{}, false, errNotYet
}

// After implements coordinator.Log.
func (l *Leadership) After(context.Context, int64) ([]protocol.Commit, error) { return nil, errNotYet }

// Append implements coordinator.Log.
func (l *Leadership) Append(context.Context, protocol.Commit) error { return errNotYet }

// Adopt implements coordinator.Log.
func (l *Leadership) Adopt(context.Context, []protocol.Commit) error { return errNotYet }

// Forget implements coordinator.Log.
func (l *Leadership) Forget(context.Context, int64) error { return errNotYet }

// Lead implements coordinator.Log.
func (l *Leadership) Lead(context.Context, uint64) (uint64, error) { return 0, errNotYet }

// Data implements coordinator.Log.
func (l *Leadership) Data(context.Context) (protocol.Data, error) {
	return protocol.Data{}, errNotYet
}

// SaveData implements coordinator.Log.
func (l *Leadership) SaveData(context.Context, protocol.Data) error { return errNotYet }

// Round implements coordinator.Log.
func (l *Leadership) Round(context.Context) (int64, error) { return 0, errNotYet }

// SaveRound implements coordinator.Log.
func (l *Leadership) SaveRound(context.Context, int64) error { return errNotYet }

// Note implements coordinator.Log.
func (l *Leadership) Note(context.Context, string) (string, error) { return "", errNotYet }

// SaveNote implements coordinator.Log.
func (l *Leadership) SaveNote(context.Context, string, string) error { return errNotYet }

// Notes are all of them, by name.
func (l *Leadership) Notes() map[string]string { return nil }

// Config is the configuration that the commits are of; "": it is not known.
func (l *Leadership) Config() string { return "" }

// SaveConfig says of which configuration the commits are.
func (l *Leadership) SaveConfig(context.Context, string) error { return errNotYet }

// First is the step of the first commit that is here; 0 when there is none.
func (l *Leadership) First() int64 { return 0 }

// Line puts a line behind those of a file, on all members. It does not wait; the order
// is that of the calls. A line has at most MaxLine bytes, and no newline.
func (l *Leadership) Line(file string, line []byte) {}

// Stored tells the members of a checkpoint, behind the lines so far. It does not wait.
func (l *Leadership) Stored(c Checkpoint) {}

// Flush returns when all lines so far are on the disks of a majority.
func (l *Leadership) Flush(context.Context) error { return errNotYet }

// Over tells the members how the job ended, behind the lines so far. It returns when a
// majority has it.
func (l *Leadership) Over(context.Context, Outcome) error { return errNotYet }

// Resign hands the leadership over to another member that is up to date. After an error
// this node may still lead.
func (l *Leadership) Resign(context.Context) error { return errNotYet }

var _ coordinator.Log = (*Leadership)(nil)
