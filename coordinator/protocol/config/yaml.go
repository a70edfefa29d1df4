package config

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"mochi/coordinator/smallfile"
)

// allClasses is what flags and YAML say for no list of classes.
const allClasses = "all"

// allAsNone takes the word for what it stands for.
func (c *Job) allAsNone() {
	if c.Classes == allClasses {
		c.Classes = ""
	}
}

// YAML writes the complete configuration; Parse reads it back.
func (c Job) YAML() ([]byte, error) {
	c.Pairs = c.Drawn()
	if c.Classes == "" {
		c.Classes = allClasses
	}
	text, err := yaml.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("write the configuration as YAML: %w", err)
	}
	return text, nil
}

// Parse reads a configuration file. What the file leaves out comes from
// the preset it names, else from Default. It is strict: unknown keys,
// keys given twice and unreadable values are all reported together, as Faults,
// and the Job returned with them holds everything that could be read, so
// that the caller can list Validate's faults too.
func Parse(text []byte) (Job, error) {
	var head struct {
		Preset string `yaml:"preset"`
	}
	base := Default()
	if _, err := topLevel(text); err != nil {
		return base, err
	}
	if yaml.Unmarshal(text, &head) == nil && head.Preset != "" {
		// An unknown preset is Validate's to report.
		if c, err := Preset(head.Preset); err == nil {
			base = c
		}
	}
	return Overlay(base, text)
}

// Recorded is Parse of what a run has written down, in a checkpoint: what it
// leaves out because there was no such setting then is as it was then.
func Recorded(text []byte) (Job, error) {
	c, err := Parse(text)
	if c.Pairs == "" {
		c.Pairs = "shard"
	}
	return c, err
}

// Overlay is Parse with base for what the file leaves out,
// whatever preset the file names.
func Overlay(base Job, text []byte) (Job, error) {
	c := base
	pairs, err := topLevel(text)
	if err != nil {
		return c, err
	}
	fields := fieldsOf(&c)
	var names []string
	for _, f := range fields {
		names = append(names, f.name)
	}
	var fs Faults
	seen := map[string]bool{}
	for _, p := range pairs {
		key, value := p[0].Value, p[1]
		at := slices.Index(names, key)
		switch {
		case at < 0:
			fs.add(key, "line %d: no such key%s", p[0].Line, didYouMean(key, names))
		case seen[key]:
			fs.add(key, "line %d: given twice", p[0].Line)
		case value.Tag == "!!null":
			fs.add(key, "line %d: has no value", p[0].Line)
		default:
			if problem := fields[at].decode(value); problem != "" {
				fs.add(key, "line %d: %s", value.Line, problem)
			}
		}
		seen[key] = true
	}
	c.allAsNone()
	return c, fs.err()
}

// Set sets one setting from a flag's value. The error is a Fault in Faults.
func (c *Job) Set(name, text string) error {
	var fs Faults
	for _, f := range fieldsOf(c) {
		if f.name != name {
			continue
		}
		value := &yaml.Node{Kind: yaml.ScalarNode, Value: text}
		if value.ShortTag() == "!!null" { // it would leave the setting as it is
			fs.add(name, "has no value")
		} else if problem := f.decode(value); problem != "" {
			fs.add(name, "%s", problem)
		}
		c.allAsNone()
		return fs.err()
	}
	fs.add(name, "no such setting")
	return fs
}

// TakeKeys splits a configuration file: the values of the named keys, a plain one or a
// list of such, which belong to one command (engine, threads, …) and not to the job, and
// the rest of the file, which is Parse's.
func TakeKeys(text []byte, names ...string) (taken map[string][]string, rest []byte, err error) {
	pairs, err := topLevel(text)
	if err != nil {
		return nil, nil, err
	}
	taken = map[string][]string{}
	others := yaml.Node{Kind: yaml.MappingNode}
	var fs Faults
	for _, p := range pairs {
		key := p[0].Value
		mine := slices.Contains(names, key)
		_, twice := taken[key]
		switch {
		case !mine:
			others.Content = append(others.Content, p[0], p[1])
		case twice:
			fs.add(key, "line %d: given twice", p[0].Line)
		default:
			values, ok := plain(p[1])
			if !ok {
				fs.add(key, "line %d: needs a plain value, or a list of them", p[1].Line)
			}
			taken[key] = values
		}
	}
	if len(fs) > 0 {
		return nil, nil, fs
	}
	if len(others.Content) == 0 {
		return taken, nil, nil
	}
	rest, err = yaml.Marshal(&others)
	return taken, rest, err
}

// plain is a value, or a list of values that is not empty.
func plain(n *yaml.Node) (values []string, ok bool) {
	nodes := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		nodes = n.Content
	}
	for _, n := range nodes {
		if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
			return nil, false
		}
		values = append(values, n.Value)
	}
	return values, len(values) > 0
}

// What a configuration file may be: it is a list of lines, each with a value or a
// short list of values.
const (
	maxFile  = 1 << 20 // bytes; classes may be thousands
	maxDepth = 8       // of lists in lists
)

// ReadFile reads a configuration file, and no more of it than one can have.
func ReadFile(path string) ([]byte, error) {
	return smallfile.Read(path, maxFile)
}

// depth is how many lists lie in each other, up to one more than maxDepth.
func depth(n *yaml.Node, above int) int {
	if above > maxDepth {
		return above
	}
	most := above
	for _, c := range n.Content {
		most = max(most, depth(c, above+1))
	}
	return most
}

// topLevel is the document's keys and values in order; none for an empty file.
func topLevel(text []byte) ([][2]*yaml.Node, error) {
	if len(text) > maxFile {
		return nil, Faults{{"config", fmt.Sprintf("a file of %d bytes is no configuration: the limit is %d", len(text), maxFile)}}
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, Faults{{"config", "not YAML: " + strings.TrimPrefix(err.Error(), "yaml: ")}}
	}
	if doc.Kind == 0 {
		return nil, nil
	}
	root := doc.Content[0]
	if depth(root, 0) > maxDepth {
		return nil, Faults{{"config", fmt.Sprintf("lists in lists more than %d deep: the limit is that; want `name: value` lines", maxDepth)}}
	}
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return nil, nil
	}
	if root.Kind != yaml.MappingNode {
		return nil, Faults{{"config", "must be a list of `name: value` lines"}}
	}
	var pairs [][2]*yaml.Node
	for i := 0; i+1 < len(root.Content); i += 2 {
		pairs = append(pairs, [2]*yaml.Node{root.Content[i], root.Content[i+1]})
	}
	return pairs, nil
}

// decode sets the field, or says in plain words why it cannot be read from
// value.
func (f field) decode(value *yaml.Node) (problem string) {
	err := value.Decode(f.value.Addr().Interface())
	if err == nil {
		return ""
	}
	var te *yaml.TypeError
	if !errors.As(err, &te) {
		return strings.TrimPrefix(err.Error(), "yaml: ")
	}
	want := map[reflect.Kind]string{
		reflect.String: "a word", reflect.Bool: "true or false", reflect.Float64: "a number", reflect.Uint64: "a whole number, 0 or more",
	}[f.value.Kind()]
	if want == "" {
		want = "a whole number"
	}
	if value.Kind != yaml.ScalarNode {
		return "must be " + want
	}
	return fmt.Sprintf("%q is not %s", value.Value, want)
}
