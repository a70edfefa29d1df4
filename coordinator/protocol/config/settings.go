package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"mochi/model/limits"
	"mochi/model/network"
)

// Setting describes a field of a Job: a flag and a key of config.yaml.
type Setting struct {
	Name    string   // "bn-group"
	Arg     string   // what its value is called in help, "" for a switch
	Help    string   // what it is
	Group   string   // heading in help
	Values  []string // the words that it may be; nil where it may be others
	Default string   // as a flag's value
}

// Settings lists the settings in the order of help and config.yaml. The preset
// is none: it says where the others start from.
func Settings() []Setting { return SettingsOf(Default()) }

// SettingsOf is Settings with the values of c as defaults.
func SettingsOf(c Job) []Setting {
	var list []Setting
	c.Pairs = c.Drawn()
	if c.Classes == "" {
		c.Classes = allClasses
	}
	group := ""
	for _, f := range fieldsOf(&c) {
		if f.group != "" {
			group = f.group
		}
		if f.help == "" {
			continue
		}
		list = append(list, Setting{
			Name: f.name, Arg: f.arg, Group: group, Values: f.oneof, Default: fmt.Sprint(f.value.Interface()),
			Help: strings.ReplaceAll(f.help, "{values}", strings.Join(f.oneof, ", ")),
		})
	}
	return list
}

// lists are the lists of words that a tag names.
func lists() map[string][]string {
	return map[string][]string{
		"Presets":               Presets(),
		"network.Architectures": network.Architectures(),
		"network.Heads":         network.Heads(),
	}
}

// field is one field of a Job with what its tags say (see Job).
type field struct {
	name             string
	value            reflect.Value // settable
	arg, help, group string
	oneof            []string // nil: no list of words
	within           limits.Range
	keeps            string
	later            bool // digest: nonzero
}

// fieldsOf lists the fields of c in the order of the struct.
func fieldsOf(c *Job) []field {
	v := reflect.ValueOf(c).Elem()
	fields := make([]field, v.NumField())
	named := lists()
	for i := range fields {
		tag := v.Type().Field(i).Tag
		name, _, _ := strings.Cut(tag.Get("yaml"), ",")
		fields[i] = field{
			name: name, value: v.Field(i), arg: tag.Get("arg"), help: tag.Get("help"), group: tag.Get("group"),
			within: limits.Range(tag.Get("range")), keeps: tag.Get("keeps"), later: tag.Get("digest") == "nonzero",
		}
		if words := tag.Get("oneof"); named[words] != nil {
			fields[i].oneof = named[words]
		} else if words != "" {
			fields[i].oneof = strings.Split(words, ",")
		}
	}
	return fields
}

// check adds what is wrong with the value of one field by itself.
func (f field) check(fs *Faults) {
	switch {
	case f.oneof != nil:
		if word := f.value.String(); !slices.Contains(f.oneof, word) {
			fs.add(f.name, "%q is not known; there are %s%s", word, strings.Join(f.oneof, ", "), didYouMean(word, f.oneof))
		}
	case f.within == "":
	case f.value.CanFloat():
		f.within.Number(f.name, f.value.Float(), fs.add)
	default:
		f.within.Whole(f.name, f.value.Int(), fs.add)
	}
}
