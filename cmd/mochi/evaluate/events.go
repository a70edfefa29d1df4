package evaluate

import (
	"mochi/coordinator/event"
	"mochi/replica/checkpoint"
)

// state says which encoder an event is about.
type state struct {
	Step  int64  `json:"step"`  // commits that it has seen
	Epoch int    `json:"epoch"` // of that step
	When  string `json:"when"`  // "before training", "after epoch 3", "after training"
}

func stateOf(st *checkpoint.State, when string) state {
	return state{Step: st.Step, Epoch: st.Epoch, When: when}
}

// knnMeasured is logged when the encoder was evaluated by its nearest
// neighbours (--knn-every). Figures without another name are of the backbone's
// features.
type knnMeasured struct {
	event.Info
	state
	KNNResult
	EmbeddingTop1 float64 `json:"knn_top1_embedding"`   // of the embeddings
	EmbeddingTop5 float64 `json:"knn_top5_embedding"`   // likewise
	ProbeTop1     float64 `json:"probe_top1,omitempty"` // of the classifier of --probe, on the test images
}

// EventName implements event.Event.
func (knnMeasured) EventName() string { return "knn" }

// geometryMeasured is logged when it was looked where the encoder puts images
// (--knn-every).
type geometryMeasured struct {
	event.Info
	state
	GeometryResult
}

// EventName implements event.Event.
func (geometryMeasured) EventName() string { return "geometry" }

// accuracyMeasured is logged when a supervised network was evaluated on the test split
// (--supervised), after every epoch.
type accuracyMeasured struct {
	event.Info
	state
	AccuracyResult
}

// EventName implements event.Event.
func (accuracyMeasured) EventName() string { return "accuracy" }
