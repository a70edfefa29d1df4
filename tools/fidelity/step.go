package main

import (
	"fmt"

	"mochi/coordinator/protocol/config"
	"mochi/model"
	"mochi/model/engine"
	"mochi/model/loss"
	"mochi/replica/augment"
	"mochi/replica/checkpoint"
	"mochi/replica/data"
	"mochi/replica/data/sampler"
)

// stepSpec asks for what the step after a checkpoint is computed from.
type stepSpec struct{ Checkpoint, Data string }

// showStep writes the step's images, in the order in which either encoder gets
// them, its samples, and what its queries mix. The state itself is in the
// checkpoint.
func showStep(s stepSpec, out *tensors) error {
	st, err := checkpoint.Load(s.Checkpoint)
	if err != nil {
		return err
	}
	job, err := config.Recorded([]byte(st.Config))
	if err != nil {
		return err
	}
	set, err := data.Open(s.Data)
	if err != nil {
		return err
	}
	order := sampler.New(set.Train.Len(), job.Seed)
	refs, shuffle := order.Batch(st.Cursor, job.Batch), order.Shuffle(st.Cursor, job.Batch)
	shuffled := make([]sampler.Ref, len(refs))
	for i, at := range shuffle {
		shuffled[i] = refs[at]
	}
	queries, err := viewsOf(set.Train, job, refs, augment.QueryView)
	if err != nil {
		return err
	}
	keys, err := viewsOf(set.Train, job, shuffled, augment.KeyView)
	if err != nil {
		return err
	}
	b := len(refs)
	samples, epochs, labels, positions := make([]int32, b), make([]int32, b), make([]int32, b), make([]int32, b)
	for i, ref := range refs {
		samples[i], epochs[i], labels[i], positions[i] = int32(ref.Sample), int32(ref.Epoch), set.Train.Label(ref.Sample), int32(shuffle[i])
	}
	size := job.ImageSize
	add(out, "queries", queries, b, augment.Channels, size, size)
	add(out, "keys", keys, b, augment.Channels, size, size)
	add(out, "samples", samples, b)
	add(out, "epochs", epochs, b)
	add(out, "labels", labels, b)
	add(out, "shuffle", positions, b)
	return mixed(st, job, queries, samples, labels, out)
}

// viewsOf makes one view of each sample.
func viewsOf(d data.Dataset, job config.Job, refs []sampler.Ref, view int) ([]float32, error) {
	recipe, err := augment.New(job.Recipe, job.ImageSize)
	if err != nil {
		return nil, err
	}
	worker, decoder := augment.NewWorker(recipe), data.NewDecoder()
	defer decoder.Close()
	n := recipe.ViewLen()
	views := make([]float32, len(refs)*n)
	for i, ref := range refs {
		img, err := d.Decode(ref.Sample, decoder)
		if err != nil {
			return nil, err
		}
		worker.View(img, augment.Seed(job.Seed, ref.Epoch, ref.Sample, view), views[i*n:(i+1)*n])
	}
	return views, nil
}

// mixed writes the embeddings of the queries, and what the loss mixes of them.
func mixed(st *checkpoint.State, job config.Job, images []float32, samples, labels []int32, out *tensors) error {
	if job.MoCHi.N == 0 {
		return nil
	}
	if job.PairsInShard() {
		return fmt.Errorf("pairs of one shard are not shown; use --pairs all")
	}
	net, err := job.Network()
	if err != nil {
		return err
	}
	eng, err := openEngine()
	if err != nil {
		return err
	}
	defer eng.Close()
	moco, err := model.New(eng, net, model.Config{
		BNGroup: job.BNGroup, Queue: job.Queue, LossBatch: job.Batch,
		Loss:     loss.Config{N: job.MoCHi.N, S: job.MoCHi.S, S2: job.MoCHi.S2, Temperature: job.Temperature, Shards: job.Shards(), Seed: job.Seed},
		Momentum: job.Momentum, SGDMomentum: job.SGDMomentum, WeightDecay: job.WeightDecay,
	})
	if err != nil {
		return err
	}
	defer moco.Close()
	moco.State().Set(engine.QueryParams, st.QueryParams)
	moco.State().Set(engine.QueryBuffers, st.QueryBuffers)
	q, stats := make([]float32, job.Batch*job.Dim), make([]float32, net.NumBuffers())
	pixels := augment.Channels * job.ImageSize * job.ImageSize
	for g := 0; g < job.Batch; g += job.BNGroup {
		end := g + job.BNGroup
		if err := moco.Forward(images[g*pixels:end*pixels], q[g*job.Dim:end*job.Dim], stats); err != nil {
			return err
		}
	}
	batch := loss.Queries{Q: q, Step: st.Step + 1, Mix: true}
	for _, s := range samples {
		batch.Samples = append(batch.Samples, int(s))
	}
	var known []int32
	if job.Oracle {
		known, batch.Labels = st.QueueLabels, labels
	}
	var x mixtures
	if err := x.collect(moco.Loss(), batch, loss.Split(st.Queue, known, st.Dim, job.Shards()), job.Shards(), job.MoCHi.N); err != nil {
		return err
	}
	add(out, "embedded", q, job.Batch, job.Dim)
	x.write(out, job.Batch)
	return nil
}
