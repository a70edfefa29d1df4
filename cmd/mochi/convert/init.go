package convert

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"mochi/coordinator/protocol/config"
	"mochi/model/network"
	"mochi/replica/checkpoint"
	"mochi/replica/queue"
)

// Weights makes the state that a job begins with of the query encoder in a checkpoint, of
// mochi or of another program: its backbone, and its head where the job has the same. All
// else, the queue too, begins as the seed has it; the key encoder is a copy of the query
// encoder, as at every start of MoCo. Images may be of another size than they were.
// notes say what was not taken. An error names the tensors that the backbone lacks.
func Weights(path string, job config.Job) (_ *checkpoint.State, notes []string, err error) {
	from, _, err := Load(path, LoadOptions{Arch: job.Arch, ImageSize: job.ImageSize})
	if err != nil {
		return nil, nil, err
	}
	net, err := job.Network()
	if err != nil {
		return nil, nil, err
	}
	if from.Net.Arch != net.Arch {
		return nil, nil, fmt.Errorf("%s is a %s, the job trains a %s: set --arch %s", path, from.Net.Arch, net.Arch, from.Net.Arch)
	}
	params, buffers := net.Init(job.Seed)
	fresh, err := take(net.Params, params, from.Net.Params, from.State.QueryParams)
	more, other := take(net.Buffers, buffers, from.Net.Buffers, from.State.QueryBuffers)
	if err := errors.Join(err, other); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	if fresh = append(fresh, more...); len(fresh) > 0 {
		notes = append(notes, "the projection head begins anew: "+names(fresh))
	}
	text, err := job.YAML()
	if err != nil {
		return nil, nil, err
	}
	q := queue.New(job.Queue, net.Dim, 1)
	q.Init(job.Seed)
	return &checkpoint.State{
		Arch: net.Arch, Net: net, Seed: job.Seed, Config: string(text), K: job.Queue, Dim: net.Dim,
		QueryParams: params, QueryBuffers: buffers, KeyParams: slices.Clone(params), KeyBuffers: slices.Clone(buffers),
		Momentum: make([]float32, len(params)), Queue: q.Keys(), QueueLabels: q.Labels(),
	}, notes, nil
}

// take copies tensors into those of the same name and shape, and says which of the head
// found none.
func take(to []network.Tensor, dst []float32, from []network.Tensor, src []float32) (fresh []string, err error) {
	var lacks []string
	for _, t := range to {
		at := slices.IndexFunc(from, func(f network.Tensor) bool { return f.Name == t.Name && slices.Equal(f.Shape, t.Shape) })
		switch {
		case at >= 0:
			copy(dst[t.Offset:t.Offset+t.Size], src[from[at].Offset:])
		case strings.HasPrefix(t.Name, "fc."):
			fresh = append(fresh, t.Name)
		default:
			lacks = append(lacks, t.Name)
		}
	}
	if len(lacks) > 0 {
		return nil, fmt.Errorf("the backbone has no %s of the same shape", names(lacks))
	}
	return fresh, nil
}
