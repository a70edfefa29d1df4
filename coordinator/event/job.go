package event

import "log/slog"

// Data is reported when the first replica has said what the job trains on.
type Data struct {
	Kind    string `json:"kind"`    // idx, folder, cifar, tar
	Train   int    `json:"train"`   // training samples
	Classes int    `json:"classes"` // 0 when unlabelled
	Digest  string `json:"digest"`  // identifies the data
}

// Checkpoint is reported when a checkpoint is stored.
type Checkpoint struct {
	Step int64  `json:"step"` // whose state it is
	Name string `json:"name"` // of the file
}

// CheckpointFailed is reported when a checkpoint could not be stored. The job
// goes on without it, unless it was to end with it.
type CheckpointFailed struct {
	Step  int64  `json:"step"`  // whose state it was to be
	Error string `json:"error"` // what went wrong
}

// Stopping is reported when an orderly stop was asked for.
type Stopping struct {
	Reason string `json:"reason"` // who or what asked for it
	Step   int64  `json:"step"`   // where the job stands
}

// Done is reported when the job has ended well: all steps are done, or it was
// stopped.
type Done struct {
	Reason string `json:"reason"` // in words
	Step   int64  `json:"step"`   // the last one
}

// Failed is reported when the job has failed.
type Failed struct {
	Reason string `json:"reason"` // in words
	Step   int64  `json:"step"`   // the last one committed
}

func (Data) EventName() string             { return "data" }
func (Checkpoint) EventName() string       { return "checkpoint" }
func (CheckpointFailed) EventName() string { return "checkpoint failed" }
func (Stopping) EventName() string         { return "stopping" }
func (Done) EventName() string             { return "done" }
func (Failed) EventName() string           { return "failed" }

func (Data) Level() slog.Level             { return slog.LevelInfo }
func (Checkpoint) Level() slog.Level       { return slog.LevelInfo }
func (CheckpointFailed) Level() slog.Level { return slog.LevelWarn }
func (Stopping) Level() slog.Level         { return slog.LevelInfo }
func (Done) Level() slog.Level             { return slog.LevelInfo }
func (Failed) Level() slog.Level           { return slog.LevelError }
