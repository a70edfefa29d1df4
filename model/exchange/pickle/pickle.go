// Package pickle reads and writes Python's pickles as data. The reader runs no
// code: it knows no Python, a global is only its name, and what a global would
// be called with is kept beside it. The machine and its opcodes are those of
// CPython's Lib/pickletools.py.
//
// Values are, in Go: nil, bool, int64, *big.Int (beyond 64 bits), float64,
// string, []byte, Tuple, *List, *Dict, *Set, Global, *Object, Persistent, and
// what a Hook of the reader has put in their place.
//
// Cost: reading is bounded by Limits, in bytes and in objects; a value costs some
// 100 bytes at most besides its text.
package pickle

// Tuple is a tuple.
type Tuple []any

// List is a list.
type List struct{ Items []any }

// Item is a key of a Dict with its value.
type Item struct{ Key, Value any }

// Dict is a dict, in the order in which its keys were set. A key that was set
// twice stands here twice; Get finds the later.
type Dict struct {
	Items []Item
	// Ordered: a collections.OrderedDict.
	Ordered bool
}

// Set adds a key.
func (d *Dict) Set(key, value any) { d.Items = append(d.Items, Item{key, value}) }

// Get is the value of a key that is a string.
func (d *Dict) Get(key string) (value any, ok bool) {
	for i := len(d.Items) - 1; i >= 0; i-- {
		if k, isString := d.Items[i].Key.(string); isString && k == key {
			return d.Items[i].Value, true
		}
	}
	return nil, false
}

// Set is a set or a frozenset.
type Set struct{ Items []any }

// Global is a class or a function, by name.
type Global struct{ Module, Name string }

func (g Global) String() string { return g.Module + "." + g.Name }

// Object is what calling a global with Args would give, and what it would be
// told afterwards: its state, items of a mapping or of a list.
type Object struct {
	Class Global
	Args  Tuple
	State any
	Items []Item
	List  []any
}

// Persistent stands for something outside of the pickle.
type Persistent struct{ ID any }

// OrderedDict is the class of ordered dictionaries.
var OrderedDict = Global{"collections", "OrderedDict"}
