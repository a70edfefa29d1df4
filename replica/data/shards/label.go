package shards

import (
	"bytes"
	"encoding/json"
	"io"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
)

// maxText is how much of a .cls or .json member is read.
const maxText = 1 << 16

// label is what a .cls or .json member says.
type label struct {
	class string // "" for none
	name  string // of the class
	count string // a number in a text, as it stands: the name of a class that .cls gives
	odd   bool   // it says something that is not understood
}

// isLabel says whether a member holds the label of a sample.
func isLabel(name string) bool {
	ext := path.Ext(name)
	return strings.EqualFold(ext, ".cls") || strings.EqualFold(ext, ".json")
}

// readLabel reads the label in a member.
func readLabel(name string, content io.Reader) *label {
	text, _ := io.ReadAll(io.LimitReader(content, maxText)) // what cannot be read says nothing
	if strings.EqualFold(path.Ext(name), ".cls") {
		return &label{class: Class(string(text))}
	}
	return classOf(text)
}

// Class is a class as a text gives it: without space, byte-order mark and zeros
// around it; a whole number in any of its forms (7, 007, 7.0, +7, 7e0) as its digits;
// a negative one is none. Anything else is the name of a class.
func Class(text string) string {
	text = strings.Trim(text, "\ufeff\x00 \t\r\n\v\f")
	if strings.ContainsAny(text, "0123456789") && !strings.ContainsAny(text, "xXpP_") {
		if v, err := strconv.ParseFloat(text, 64); err == nil && math.Abs(v) < 1<<53 && v == math.Trunc(v) {
			if v < 0 {
				return ""
			}
			return strconv.FormatInt(int64(v), 10)
		}
	}
	return text
}

// The fields of .json that give a class, the first one that is there.
var (
	classFields = []string{"cls", "label", "class", "class_id", "label_id", "class_index", "label_index"}
	nameFields  = []string{"class_name", "label_name"}
)

// ClassFields are the names of fields that give a class, the first one that is there.
func ClassFields() []string { return slices.Concat(classFields, nameFields) }

// classOf reads a class and its name from a sample's .json.
func classOf(content []byte) *label {
	var fields map[string]any
	d := json.NewDecoder(bytes.NewReader(bytes.TrimPrefix(bytes.TrimSpace(content), []byte("\ufeff"))))
	d.UseNumber()
	if d.Decode(&fields) != nil {
		return &label{odd: true}
	}
	return classIn(fields)
}

// FieldsClass is the class that a JSON object gives, whose numbers are json.Number; odd:
// it says something that is not understood.
func FieldsClass(fields map[string]any) (class string, odd bool) {
	l := classIn(fields)
	return l.class, l.odd
}

// classIn reads a class and its name. Of the fields that have a number, the first gives
// the class; of the texts, the first gives the name, and the class too where there is no
// number.
func classIn(fields map[string]any) *label {
	l, none := &label{}, false
	for _, field := range ClassFields() {
		value, there := fields[field]
		if list, is := value.([]any); is && len(list) == 1 {
			value = list[0]
		}
		switch v := value.(type) {
		case json.Number:
			class := Class(v.String())
			switch _, number := Number(class); {
			case class == "":
				none = true
			case !number && strings.ContainsAny(class, ".eE"):
				l.odd = true // half a class
			case l.class == "":
				l.class = class
			}
		case bool:
			if l.class == "" {
				l.class = map[bool]string{false: "0", true: "1"}[v]
			}
		case string:
			text := Class(v)
			_, number := Number(text)
			switch {
			case text == "" || number:
				if none = none || v != "" && text == ""; l.count == "" {
					l.count = v
				}
				if l.class == "" {
					l.class = text
				}
			case l.name == "":
				l.name = text
			}
		case nil:
			none = none || there
		default:
			l.odd = true // several classes, boxes
		}
	}
	if l.class == "" && !none {
		l.class = l.name
	}
	l.odd = l.odd && l.class == ""
	return l
}

// Number is a class as a number; false when it is a word.
func Number(class string) (int32, bool) {
	n, err := strconv.ParseUint(class, 10, 20) // a million classes
	return int32(n), err == nil
}
