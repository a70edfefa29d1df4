package exchange

import (
	"fmt"
	"slices"
	"strings"

	"mochi/model/network"
)

// headNames are the names in the file of a head's tensors, by their names here:
// fc.0.weight, fc.0.bias, fc.2.weight, fc.2.bias or fc.weight, fc.bias. A head
// stands in the backbone's fc or under a prefix of its own. What is no such head
// is not taken.
func (m *importer) headNames(backbone, prefix string) map[string]string {
	at := prefix
	if prefix == "" {
		if m.layout.classifier {
			return nil
		}
		at = backbone + "fc."
	}
	list := map[string]string{}
	for _, name := range under(m.arrays, at) {
		list["fc."+name] = at + name
	}
	mlp := []string{"fc.0.bias", "fc.0.weight", "fc.2.bias", "fc.2.weight"}
	linear := []string{"fc.bias", "fc.weight"}
	if len(list) == 2 && prefix != "" { // one layer under its number
		if w, ok := list["fc.0.weight"]; ok {
			list = map[string]string{"fc.weight": w, "fc.bias": list["fc.0.bias"]}
		}
	}
	names := sorted(list)
	if slices.Equal(names, mlp) || slices.Equal(names, linear) {
		return list
	}
	if len(names) > 0 {
		m.note("its projection head has %s: none of the heads here, it begins anew", few(names))
	}
	return nil
}

func (m *importer) note(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(m.out.Notes, text) {
		m.out.Notes = append(m.out.Notes, text)
	}
}

func sorted(list map[string]string) []string {
	var names []string
	for name := range list {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// headOf finds the query encoder's head, "" where there is none that fits the
// backbone.
func (m *importer) headOf(query map[string]string) (kind string, names map[string]string) {
	names = m.headNames(m.layout.query, m.layout.head)
	feature := m.featureDim(query)
	switch {
	case names["fc.weight"] != "":
		if w := m.arrays[names["fc.weight"]].Shape; len(w) == 2 && w[1] == feature {
			return network.HeadLinear, names
		}
	case names["fc.0.weight"] != "":
		hidden, out := m.arrays[names["fc.0.weight"]].Shape, m.arrays[names["fc.2.weight"]].Shape
		if slices.Equal(hidden, []int{feature, feature}) && len(out) == 2 && out[1] == feature {
			return network.HeadMLP, names
		}
		m.note("its projection head has layers of %v and %v; here the hidden one is as wide as the backbone's feature, %d: it begins anew", hidden, out, feature)
	}
	return "", nil
}

// featureDim is the length of the backbone's feature: the channels of its last
// BatchNorm, which stands in the last stage.
func (m *importer) featureDim(query map[string]string) int {
	dim := 0
	for stage := '1'; stage <= '4'; stage++ {
		for _, bn := range []string{"bn2", "bn3"} {
			if name, ok := query["layer"+string(stage)+".0."+bn+".weight"]; ok && len(m.arrays[name].Shape) == 1 {
				dim = m.arrays[name].Shape[0]
			}
		}
	}
	return dim
}

// dim is the length of the head's output.
func (m *importer) dim(names map[string]string, otherwise int) int {
	for _, name := range []string{"fc.weight", "fc.2.weight"} {
		if from, ok := names[name]; ok && m.arrays[from].Shape[0] > 0 {
			return m.arrays[from].Shape[0]
		}
	}
	return otherwise
}

// takeHead reads the head of an encoder, or says that it begins anew.
func (m *importer) takeHead(encoder string, names map[string]string, params []float32) error {
	for _, t := range m.out.Net.Params {
		if !strings.HasPrefix(t.Name, "fc.") {
			continue
		}
		name, ok := names[t.Name]
		if !ok || !slices.Equal(m.arrays[name].Shape, t.Shape) {
			m.out.Missing = append(m.out.Missing, encoder+t.Name)
			continue
		}
		if err := m.read(name, encoder+t.Name, params[t.Offset:t.Offset+t.Size]); err != nil {
			return err
		}
	}
	return nil
}
