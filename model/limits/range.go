package limits

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Range is a range of numbers in the words that people read: one bound, or two
// joined by "and", each "at least X", "above X", "at most X" or "below X".
type Range string

// AtLeast is the range from least on.
func AtLeast(least int) Range { return Range(fmt.Sprintf("at least %d", least)) }

// Whole checks a whole number and says which bound it misses.
func (r Range) Whole(setting string, value int64, fault Report) {
	for _, b := range r.bounds() {
		if b.holds(float64(value)) {
			continue
		}
		how := "large"
		if b.lower {
			how = "small"
		}
		fault(setting, "%d is too %s; %s", value, how, b.text)
		return
	}
}

// Number checks a real number; one that is infinite or none is in no range.
func (r Range) Number(setting string, value float64, fault Report) {
	switch {
	case math.IsInf(value, 0) && r.holds(value):
		fault(setting, "%v must be finite and %s", value, string(r))
	case !r.holds(value):
		fault(setting, "%v must be %s", value, string(r))
	}
}

// holds says whether x is in the range.
func (r Range) holds(x float64) bool {
	for _, b := range r.bounds() {
		if !b.holds(x) {
			return false
		}
	}
	return true
}

// bound is one end of a range.
type bound struct {
	text  string
	lower bool
	holds func(x float64) bool
}

// bounds reads the words. A range is part of the source, so words that are none
// are a mistake in it.
func (r Range) bounds() []bound {
	var list []bound
	for part := range strings.SplitSeq(string(r), " and ") {
		i := strings.LastIndexByte(part, ' ')
		x, err := strconv.ParseFloat(part[i+1:], 64)
		if i < 0 || err != nil {
			panic(fmt.Sprintf("limits: %q is no range", string(r)))
		}
		b := bound{text: part}
		switch part[:i] {
		case "at least":
			b.lower, b.holds = true, func(v float64) bool { return v >= x }
		case "above":
			b.lower, b.holds = true, func(v float64) bool { return v > x }
		case "at most":
			b.holds = func(v float64) bool { return v <= x }
		case "below":
			b.holds = func(v float64) bool { return v < x }
		default:
			panic(fmt.Sprintf("limits: %q is no range", string(r)))
		}
		list = append(list, b)
	}
	return list
}
