package run

import "mochi/coordinator/event"

// The events of log.jsonl that are not the coordinator's (package event says
// how to add one; docs/log.md lists them all).

// collapse is logged once, when the embeddings are close to each other: training
// has failed.
type collapse struct {
	event.Warning
	Step   int64   `json:"step"`   // at which it was noticed
	Spread float64 `json:"spread"` // of the queries: 1 over the whole sphere, 0 when all are alike
}

// EventName implements event.Event.
func (collapse) EventName() string { return "collapse" }

// settingsChanged is logged when a run goes on with other settings than before. The
// config.yaml of before is kept as config.yaml.1, ….
type settingsChanged struct {
	event.Info
	Step int64             `json:"step"` // the last one with the old settings
	Old  map[string]string `json:"old"`  // by name: as they were
	New  map[string]string `json:"new"`  // by name: as they are from the next step on
}

// EventName implements event.Event.
func (settingsChanged) EventName() string { return "settings" }

// unreadableData is logged for each part of a data set that cannot be listed.
type unreadableData struct {
	event.Warning
	Path  string `json:"path"`  // a folder or file of the data set
	Cause string `json:"cause"` // why not
}

// EventName implements event.Event.
func (unreadableData) EventName() string { return "unreadable data" }

// corruptImage is logged once for each image that cannot be decoded. In training
// another image takes its place; evaluation leaves it out.
type corruptImage struct {
	event.Warning
	Path  string `json:"path"`  // of the image
	Cause string `json:"cause"` // why not
}

// EventName implements event.Event.
func (corruptImage) EventName() string { return "corrupt image" }
