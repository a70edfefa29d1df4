package shards

import (
	"cmp"
	"io"
	"path"
	"slices"
	"strings"

	"mochi/replica/data/naming"
)

// stemOf is a member's name without its last extension; keyOf is WebDataset's key, up
// to the first dot of its last part.
func stemOf(name string) string { return strings.TrimSuffix(name, path.Ext(name)) }

func keyOf(name string) string {
	dir, base := path.Split(name)
	stem, _, _ := strings.Cut(base, ".")
	return dir + stem
}

// grouping joins members by key. Members of a key need not be neighbours.
type grouping struct {
	shard  *Shard
	labels map[string]*found   // by stem
	groups map[string][]member // images, by key
	keys   []string            // of groups, as met
	rest   []member
}

// found is the label of a stem: .cls wins over .json, which may name the class.
type found struct {
	cls, json *label
	members   []string
	used      bool
}

// group turns members into samples, one image each: docs/data.md says which.
func (in *scan) group() {
	g := grouping{shard: in.shard, labels: make(map[string]*found), groups: make(map[string][]member)}
	for _, m := range in.last() {
		switch {
		case isLabel(m.name):
			g.label(m)
		case naming.IsImage(m.name):
			key := keyOf(m.name)
			if g.groups[key] == nil {
				g.keys = append(g.keys, key)
			}
			g.groups[key] = append(g.groups[key], m)
		default:
			g.rest = append(g.rest, m)
		}
	}
	masks := g.masks()
	for _, key := range g.keys {
		g.samples(key, masks)
	}
	g.finish()
}

// last is the members of which none of the same name comes later, and links as what
// they lead to.
func (in *scan) last() []member {
	at := make(map[string]int, len(in.members))
	kept := in.members[:0:0]
	for i, m := range in.members {
		at[m.name] = i
	}
	for i, m := range in.members {
		if at[m.name] != i {
			in.leave(m, naming.Overwritten)
			continue
		}
		if m.link == "" {
			kept = append(kept, m)
			continue
		}
		to, ok := in.follow(m, at)
		if !ok {
			in.leave(m, naming.DeadLink)
			continue
		}
		m.offset, m.size = to.offset, to.size
		if isLabel(m.name) {
			m.label = in.labelAt(m)
		}
		kept = append(kept, m)
	}
	return kept
}

func (in *scan) leave(m member, why naming.Reason) {
	in.shard.Left = append(in.shard.Left, Left{m.name, why})
}

// follow is the member that a link leads to, over other links.
func (in *scan) follow(m member, at map[string]int) (to member, ok bool) {
	for range 16 {
		i, there := at[m.link]
		if !there {
			return m, false
		}
		if m = in.members[i]; m.link == "" {
			return m, true
		}
	}
	return m, false // in a circle
}

// labelAt reads a label where a link leads to.
func (in *scan) labelAt(m member) *label {
	if _, err := in.r.Seek(m.offset, io.SeekStart); err != nil {
		return &label{odd: true}
	}
	return readLabel(m.name, io.LimitReader(in.r, m.size))
}

func (g *grouping) label(m member) {
	stem := stemOf(m.name)
	f := g.labels[stem]
	if f == nil {
		f = &found{}
		g.labels[stem] = f
	}
	if f.members = append(f.members, m.name); strings.EqualFold(path.Ext(m.name), ".cls") {
		f.cls = m.label
	} else {
		f.json = m.label
	}
}

// masks are the images that are masks of others of their folder, by their names.
func (g *grouping) masks() map[string]bool {
	folders := make(map[string][]string)
	for _, key := range g.keys {
		for _, m := range g.groups[key] {
			folders[path.Dir(m.name)] = append(folders[path.Dir(m.name)], path.Base(m.name))
		}
	}
	masks := make(map[string]bool)
	for dir, bases := range folders {
		for base := range naming.MasksAmong(bases) {
			masks[path.Join(dir, base)] = true
		}
	}
	return masks
}

// samples makes samples of the images of a key. Those with a label of their own, by
// the name up to the last dot, are one each. The others are one sample together where
// the key has a label or an image that has no further dot: the plain one, a JPEG file
// first; else their names have dots in them, and they are one sample each.
func (g *grouping) samples(key string, masks map[string]bool) {
	images := g.groups[key]
	word := func(m member) bool { return stemOf(m.name) != key && naming.MaskOf(stemOf(m.name)) != "" }
	pictures := slices.ContainsFunc(images, func(m member) bool { return !word(m) })
	var shared []member
	plain := false
	for _, m := range images {
		switch stem := stemOf(m.name); {
		case stem != key && g.labels[stem] != nil:
			g.sample(m, stem, g.labels[stem])
		case masks[m.name], word(m) && pictures:
			g.leave(m.name, naming.Mask)
		default:
			shared = append(shared, m)
			plain = plain || stem == key
		}
	}
	if g.labels[key] == nil && !(plain && slices.ContainsFunc(shared, func(m member) bool { return stemOf(m.name) != key })) {
		for _, m := range shared { // without anything that would join them
			g.sample(m, stemOf(m.name), nil)
		}
		return
	}
	slices.SortStableFunc(shared, func(a, b member) int { return rank(a.name, key) - rank(b.name, key) })
	for i, m := range shared {
		if i == 0 {
			g.sample(m, key, g.labels[key])
		} else {
			g.leave(m.name, naming.Several)
		}
	}
}

// rank orders the images of one sample: those without a further dot first, then JPEG
// files.
func rank(name, key string) int {
	r := 0
	if stemOf(name) != key {
		r += 2
	}
	if ext := strings.ToLower(path.Ext(name)); !strings.HasPrefix(ext, ".j") {
		r++
	}
	return r
}

func (g *grouping) leave(name string, why naming.Reason) {
	g.shard.Left = append(g.shard.Left, Left{name, why})
}

func (g *grouping) sample(m member, key string, f *found) {
	s := Sample{Name: m.name, Key: key, Offset: m.offset, Size: m.size, Packed: m.packed}
	if f != nil {
		f.used = true
		if s.Class = f.class(); s.Class != "" && f.json != nil && g.shard.Names[s.Class] == "" {
			if name := f.name(); name != "" {
				g.shard.Names[s.Class] = name
			}
		}
	}
	g.shard.Samples = append(g.shard.Samples, s)
}

// class is that of .cls, or else that of .json.
func (f *found) class() string {
	if f.cls != nil {
		return f.cls.class
	}
	return f.json.class
}

// name is the class's, of .json.
func (f *found) name() string {
	if f.cls != nil {
		return cmp.Or(f.json.name, f.json.count)
	}
	return f.json.name
}

// finish counts what is no image, and sorts.
func (g *grouping) finish() {
	s := g.shard
	sampled := make(map[string]bool, len(s.Samples))
	for _, sample := range s.Samples {
		sampled[keyOf(sample.Name)] = true
	}
	for _, f := range g.labels {
		if !f.used {
			for _, name := range f.members {
				g.leave(name, naming.NoImage)
			}
			continue
		}
		if s.Read += len(f.members); f.cls == nil && f.json.odd {
			s.Odd = append(s.Odd, f.members...)
		}
	}
	for _, m := range g.rest {
		if sampled[keyOf(m.name)] {
			g.leave(m.name, naming.Field)
		} else {
			g.leave(m.name, naming.NoImage)
		}
	}
	slices.Sort(s.Odd)
	slices.SortStableFunc(s.Left, func(a, b Left) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(s.Samples, func(a, b Sample) int {
		if c := strings.Compare(a.Key, b.Key); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
}
