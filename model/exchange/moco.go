package exchange

import (
	"io"

	"mochi/model/exchange/array"
	"mochi/model/exchange/pickle"
	"mochi/model/exchange/torch"
)

// MoCoState is all that the training of MoCo goes on from.
type MoCoState struct {
	Query, Key Encoder
	Momentum   []float32 // of the query encoder's parameters; nil: the optimiser starts anew
	Queue      []float32 // [Dim, K]
	Dim, K     int
	Ptr        int
	Epoch      int // to be trained next
	SGD        SGD
}

// SGD are the settings of torch.optim.SGD.
type SGD struct{ LR, Momentum, WeightDecay float64 }

// MoCo writes a checkpoint of facebookresearch/moco's main_moco.py, commit
// 132aea9d: its --resume goes on from there. The optimiser holds the parameters
// of both encoders, as model.parameters() gives them there, and a state for those
// of the query encoder, the only ones with gradients.
func MoCo(w io.Writer, m MoCoState) error {
	var s torch.Saver
	const module = "module." // DistributedDataParallel's
	// A module's own tensors come before those of the modules in it.
	list := []array.Value{
		{Name: module + "queue", Shape: []int{m.Dim, m.K}, Floats: m.Queue},
		{Name: module + "queue_ptr", Shape: []int{1}, Ints: []int64{int64(m.Ptr)}},
	}
	list = append(list, m.Query.StateDict(module+"encoder_q.", true)...)
	list = append(list, m.Key.StateDict(module+"encoder_k.", true)...)

	state, params := &pickle.Dict{}, &pickle.List{}
	for i, t := range m.Query.Net.Params {
		if m.Momentum != nil {
			buffer := &pickle.Dict{}
			buffer.Set("momentum_buffer", s.Tensor(array.Value{Shape: t.Shape, Floats: m.Momentum[t.Offset : t.Offset+t.Size]}))
			state.Set(i, buffer)
		}
	}
	for i := range 2 * len(m.Query.Net.Params) {
		params.Items = append(params.Items, i)
	}
	group := &pickle.Dict{}
	for _, i := range []pickle.Item{
		{Key: "lr", Value: m.SGD.LR}, {Key: "momentum", Value: m.SGD.Momentum}, {Key: "dampening", Value: 0}, {Key: "weight_decay", Value: m.SGD.WeightDecay},
		{Key: "nesterov", Value: false}, {Key: "maximize", Value: false}, {Key: "foreach", Value: nil}, {Key: "differentiable", Value: false}, {Key: "fused", Value: nil},
		{Key: "params", Value: params},
	} {
		group.Set(i.Key, i.Value)
	}
	optimizer := &pickle.Dict{}
	optimizer.Set("state", state)
	optimizer.Set("param_groups", &pickle.List{Items: []any{group}})

	root := &pickle.Dict{}
	root.Set("epoch", m.Epoch)
	root.Set("arch", m.Query.Net.Arch)
	root.Set("state_dict", s.StateDict(list))
	root.Set("optimizer", optimizer)
	return s.Save(w, root)
}
