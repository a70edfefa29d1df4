package exchange

import (
	"fmt"
	"slices"
	"strings"

	"mochi/model/exchange/array"
	"mochi/model/exchange/pickle"
	"mochi/model/exchange/torch"
	"mochi/model/network"
)

// ImportOptions say what a file is taken for.
type ImportOptions struct {
	Arch      string // "": the one that fits
	ImageSize int    // 0: 224 or 32, what its stem is made for
	Head      string // of the network where the file has none that fits
	Dim       int    // likewise
	Seed      uint64 // of what the file does not have
}

// Imported is an encoder, or all of a checkpoint, from another program's file.
type Imported struct {
	Layout string // whose names these are
	Arch   string
	Head   string
	Net    *network.Network

	QueryParams, QueryBuffers, KeyParams, KeyBuffers []float32
	Momentum                                         []float32 // nil: none in the file
	Queue                                            []float32 // [K, Dim]; nil: none in the file
	K, Ptr                                           int
	Epoch                                            int // that the file speaks of

	Loaded     []string // tensors taken, by their names here
	Missing    []string // what begins anew: encoder_q.fc.…, encoder_k, optimizer.momentum, queue
	Unexpected []string // names in the file that have no place here
	Notes      []string
}

// MissingError says which tensors of a backbone a file lacks: it is refused, for
// what is left would be a network in part of random numbers.
type MissingError struct {
	Arch    string
	Names   []string // missing
	Wrong   []string // of another shape
	Deeper  []string // layers that Arch has not
	Encoder string
}

func (e *MissingError) Error() string {
	var parts []string
	for _, p := range []struct {
		what string
		list []string
	}{{"missing", e.Names}, {"of another shape", e.Wrong}, {"layers that it has not", e.Deeper}} {
		if len(p.list) > 0 {
			parts = append(parts, fmt.Sprintf("%s: %s", p.what, few(p.list)))
		}
	}
	return fmt.Sprintf("the %s does not fit %s (%s)", e.Encoder, e.Arch, strings.Join(parts, "; "))
}

// few lists some of many names.
func few(list []string) string {
	const shown = 5
	if len(list) <= shown {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:shown], ", "), len(list)-shown)
}

// importer is an import under way.
type importer struct {
	arrays map[string]*array.Array // without wrappers' prefixes
	used   map[string]bool
	layout layout
	names  naming
	out    *Imported
}

// Import takes an encoder from a file. A backbone must be there whole; what else
// there is, is taken as far as it fits, and reported.
func Import(f *Foreign, o ImportOptions) (*Imported, error) {
	m := &importer{arrays: unwrapped(f.Arrays), used: map[string]bool{}, out: &Imported{Epoch: f.Epoch}}
	var ok bool
	if m.layout, m.names, ok = recognise(m.arrays); !ok {
		return nil, fmt.Errorf("%w: none of its %d tensors is called as the layers of a ResNet are (conv1.weight, encoder_q.conv1.weight, backbone.conv1.weight, …); the first are %s",
			ErrForeign, len(m.arrays), few(under(m.arrays, "")))
	}
	m.out.Layout = m.layout.name
	query := m.backbone(m.layout.query)
	head, headNames := m.headOf(query)
	if head == "" {
		head = o.Head
	}
	dim := m.dim(headNames, o.Dim)
	net, err := m.network(query, o, network.Options{Channels: 3, Dim: dim, Head: head})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrForeign, err)
	}
	m.out.Net, m.out.Arch, m.out.Head = net, net.Arch, head
	m.out.QueryParams, m.out.QueryBuffers = net.Init(o.Seed)
	if err := m.take("encoder_q.", query, m.out.QueryParams, m.out.QueryBuffers); err != nil {
		return nil, err
	}
	if err := m.takeHead("encoder_q.", headNames, m.out.QueryParams); err != nil {
		return nil, err
	}
	if err := m.keyEncoder(); err != nil {
		return nil, err
	}
	if err := m.queue(); err != nil {
		return nil, err
	}
	if err := m.momentum(f.Optimizer); err != nil {
		return nil, err
	}
	for name := range m.arrays {
		if !m.used[name] && !strings.HasSuffix(name, ".num_batches_tracked") {
			m.out.Unexpected = append(m.out.Unexpected, name)
		}
	}
	slices.Sort(m.out.Unexpected)
	return m.out, nil
}

// backbone are the arrays of the layers under a prefix: by torchvision's name, the
// name in the file.
func (m *importer) backbone(prefix string) map[string]string {
	list := map[string]string{}
	for _, name := range under(m.arrays, prefix) {
		if to := m.names(name); !strings.HasPrefix(to, "fc.") {
			list[to] = prefix + name
		}
	}
	return list
}

// network finds the architecture, or says why the one that was asked for is not it.
func (m *importer) network(query map[string]string, o ImportOptions, n network.Options) (*network.Network, error) {
	archs := network.Architectures()
	if o.Arch != "" {
		archs = []string{o.Arch}
	}
	var best *MissingError
	for _, arch := range archs {
		n.ImageSize = 32
		if network.LargeImages(arch) {
			n.ImageSize = 224
		}
		net, err := network.Build(arch, n)
		if err != nil {
			return nil, err
		}
		e := m.fits(net, query)
		if e == nil {
			if o.ImageSize > 0 {
				n.ImageSize = o.ImageSize
			}
			if o.Arch == "" {
				arch = m.padded(arch)
			}
			return network.Build(arch, n)
		}
		if best == nil || len(e.Names)+len(e.Wrong)+len(e.Deeper) < len(best.Names)+len(best.Wrong)+len(best.Deeper) {
			best = e
		}
	}
	return nil, best
}

// padded is arch, or its like whose stem pads by 2, which has the same tensors: the
// file cannot say which it is, only whose it is.
func (m *importer) padded(arch string) string {
	wide := arch + network.WideStem
	if !slices.Contains(network.Architectures(), wide) {
		return arch
	}
	if m.layout.wideStem {
		m.note("the stem pads by 2, as solo-learn's for small images does; --arch %s is the one that pads by 1", arch)
		return wide
	}
	m.note("a file does not say how its 3×3 stem pads: taken to be by 1; --arch %s is the one that pads by 2, as solo-learn's", wide)
	return arch
}

// fits compares the backbone of a network with the arrays of a file; nil: all are
// there, and no others of that kind.
func (m *importer) fits(net *network.Network, have map[string]string) *MissingError {
	e := &MissingError{Arch: net.Arch, Encoder: "backbone"}
	known := map[string]bool{}
	for _, t := range slices.Concat(net.Params, net.Buffers) {
		if strings.HasPrefix(t.Name, "fc.") {
			continue
		}
		known[t.Name] = true
		name, ok := have[t.Name]
		switch {
		case !ok:
			e.Names = append(e.Names, t.Name)
		case !slices.Equal(m.arrays[name].Shape, t.Shape):
			e.Wrong = append(e.Wrong, fmt.Sprintf("%s %v, not %v", t.Name, m.arrays[name].Shape, t.Shape))
		}
	}
	for name := range have {
		if strings.HasPrefix(name, "layer") && !known[name] && !strings.HasSuffix(name, ".num_batches_tracked") {
			e.Deeper = append(e.Deeper, name)
		}
	}
	slices.Sort(e.Deeper)
	if len(e.Names)+len(e.Wrong)+len(e.Deeper) == 0 {
		return nil
	}
	return e
}

// take reads the backbone of an encoder.
func (m *importer) take(encoder string, have map[string]string, params, buffers []float32) error {
	for _, list := range []struct {
		tensors []network.Tensor
		flat    []float32
	}{{m.out.Net.Params, params}, {m.out.Net.Buffers, buffers}} {
		for _, t := range list.tensors {
			if name, ok := have[t.Name]; ok {
				if err := m.read(name, encoder+t.Name, list.flat[t.Offset:t.Offset+t.Size]); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// read reads one array of the file into dst, which has its length.
func (m *importer) read(name, as string, dst []float32) error {
	values, err := m.arrays[name].Float32s()
	if err == nil && len(values) != len(dst) {
		err = fmt.Errorf("%d elements, not %d", len(values), len(dst))
	}
	if err != nil {
		return fmt.Errorf("%w: tensor %s: %w", ErrForeign, name, err)
	}
	copy(dst, values)
	m.used[name] = true
	m.out.Loaded = append(m.out.Loaded, as)
	return nil
}

// keyEncoder takes the key encoder; without one in the file it is a copy of the
// query encoder, as at the start of a training.
func (m *importer) keyEncoder() error {
	m.out.KeyParams, m.out.KeyBuffers = slices.Clone(m.out.QueryParams), slices.Clone(m.out.QueryBuffers)
	var have map[string]string
	if m.layout.key != "" {
		have = m.backbone(m.layout.key)
	}
	if len(have) == 0 {
		m.out.Missing = append(m.out.Missing, "encoder_k")
		return nil
	}
	if e := m.fits(m.out.Net, have); e != nil {
		e.Encoder = "key encoder"
		return fmt.Errorf("%w: %w", ErrForeign, e)
	}
	if err := m.take("encoder_k.", have, m.out.KeyParams, m.out.KeyBuffers); err != nil {
		return err
	}
	return m.takeHead("encoder_k.", m.headNames(m.layout.key, m.layout.keyHead), m.out.KeyParams)
}

// queue takes a queue of MoCo, [d, K].
func (m *importer) queue() error {
	a, ok := m.arrays["queue"]
	if !ok || len(a.Shape) != 2 || a.Shape[0] != m.out.Net.Dim || a.Shape[1] < 1 {
		m.out.Missing = append(m.out.Missing, "queue")
		if ok {
			m.out.Notes = append(m.out.Notes, fmt.Sprintf("its queue has shape %v, not [%d, K]: it is filled anew", a.Shape, m.out.Net.Dim))
		}
		return nil
	}
	d, k := a.Shape[0], a.Shape[1]
	columns := make([]float32, d*k)
	if err := m.read("queue", "queue", columns); err != nil {
		return err
	}
	m.out.K, m.out.Queue = k, make([]float32, d*k)
	for slot := range k {
		for i := range d {
			m.out.Queue[slot*d+i] = columns[i*k+slot]
		}
	}
	if p, ok := m.arrays["queue_ptr"]; ok {
		ptr, err := p.Int64s()
		if err != nil || len(ptr) != 1 || ptr[0] < 0 || ptr[0] >= int64(k) {
			return fmt.Errorf("%w: queue_ptr is %v (%v), the queue has %d slots", ErrForeign, ptr, err, k)
		}
		m.out.Ptr, m.used["queue_ptr"] = int(ptr[0]), true
		m.out.Loaded = append(m.out.Loaded, "queue_ptr")
	}
	return nil
}

// momentum takes that of torch.optim.SGD over the parameters of both encoders, the
// query encoder's first, as main_moco.py has them.
func (m *importer) momentum(optimizer *pickle.Dict) error {
	buffers, ok := m.momentumBuffers(optimizer)
	if !ok {
		m.out.Missing = append(m.out.Missing, "optimizer.momentum")
		return nil
	}
	m.out.Momentum = make([]float32, m.out.Net.NumParams())
	for i, t := range m.out.Net.Params {
		values, err := buffers[i].Float32s()
		if err != nil {
			return fmt.Errorf("%w: momentum of %s: %w", ErrForeign, t.Name, err)
		}
		copy(m.out.Momentum[t.Offset:t.Offset+t.Size], values)
		m.out.Loaded = append(m.out.Loaded, "optimizer.momentum."+t.Name)
	}
	return nil
}

// momentumBuffers are those of the network's parameters in order, if they are all
// there with their shapes.
func (m *importer) momentumBuffers(optimizer *pickle.Dict) ([]*array.Array, bool) {
	if optimizer == nil || m.layout.name != "MoCo" || slices.ContainsFunc(m.out.Missing, func(name string) bool { return strings.HasPrefix(name, "encoder_q.") }) {
		return nil, false
	}
	state, _ := optimizer.Get("state")
	groups, _ := optimizer.Get("param_groups")
	list, isList := groups.(*pickle.List)
	byID, isDict := state.(*pickle.Dict)
	if !isDict || !isList || len(list.Items) != 1 {
		return nil, false
	}
	group, isDict := list.Items[0].(*pickle.Dict)
	if !isDict {
		return nil, false
	}
	ids, _ := group.Get("params")
	order, isList := ids.(*pickle.List)
	if !isList || len(order.Items) < len(m.out.Net.Params) {
		return nil, false
	}
	of := map[any]*array.Array{}
	for _, i := range byID.Items {
		id, isInt := i.Key.(int64)
		inner, isDict := i.Value.(*pickle.Dict)
		if !isInt || !isDict {
			continue
		}
		v, _ := inner.Get("momentum_buffer")
		if t, isTensor := v.(*torch.Tensor); isTensor {
			of[id] = t.Array()
		}
	}
	var out []*array.Array
	for i, t := range m.out.Net.Params {
		id, isInt := order.Items[i].(int64)
		a := of[id]
		if !isInt || a == nil || !slices.Equal(a.Shape, t.Shape) {
			return nil, false
		}
		out = append(out, a)
	}
	return out, true
}
