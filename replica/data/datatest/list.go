package datatest

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/text/unicode/norm"
)

// makeList makes a list, with a test split of one of the forms, of images in odd places.
func (w *maker) makeList(to *World) error {
	var all []line
	number := w.chance(50)
	for i := range 4 + w.rng.IntN(10) {
		name := w.pick("", "images/", "a b/", "Café/", "Cafe\u0301 2/", "masks/", ".hidden/", "train/") + fmt.Sprintf("%d%s", i, w.pick(".png", ".jpg", "", "_mask.png", ", 2.png", `"x".png`))
		w.put(name, w.image())
		l := line{path: name, class: w.pick("cat", "Café", "a, b", `the "dog"`, "a b")}
		if number {
			l.class = fmt.Sprint(w.rng.IntN(4))
		}
		l.label = l.class
		switch w.rng.IntN(8) {
		case 0:
			l.label, l.class = w.pick("", "-1"), ""
		case 1:
			if number {
				l.label = w.pick("0"+l.class, l.class+".0", " "+l.class)
			} else {
				l.label = norm.NFD.String(l.class)
			}
		}
		l.test = i > 1 && w.chance(30)
		all = append(all, l)
	}
	w.put("not named.png", w.image())
	w.left++
	return w.writeLists(to, all)
}

// line is a line of a list that names an image.
type line struct {
	path, label, class string
	test               bool
}

// written is a path as a list may have it.
func (w *maker) written(name string) string {
	switch w.rng.IntN(6) {
	case 0:
		return "./" + name
	case 1:
		return filepath.Join(w.at, name)
	case 2:
		return "none/../" + name
	case 3:
		if w.chance(50) {
			return norm.NFC.String(name)
		}
		return norm.NFD.String(name)
	case 4:
		return strings.ReplaceAll(name, "/", `\`)
	}
	return name
}

// writeLists writes the lines as one list with a column of splits, as two lists beside
// each other, or as one without tests; some lines name what cannot be used.
func (w *maker) writeLists(to *World, all []line) error {
	form, asJSON := w.rng.IntN(3), w.chance(30)
	var rows [2][][]string // of the list, and of the one for tests: path, label, split
	for _, l := range all {
		truth, at, split := w.train, 0, "train"
		if l.test && form < 2 {
			truth, split = w.test, "val"
			if form == 1 {
				at = 1
			}
		}
		rows[at] = append(rows[at], []string{w.written(l.path), l.label, split})
		truth[l.path] = l.class
	}
	for range w.rng.IntN(4) {
		w.left++
		bad := [][]string{{"gone.png", "cat", "train"}, {"../outside.png", "cat", "train"}, {"/etc/passwd", "1", "train"}, rows[0][w.rng.IntN(len(rows[0]))], {"", "cat", "train"}}[w.rng.IntN(5)]
		rows[0] = append(rows[0], bad)
	}
	if form == 0 && w.chance(30) {
		w.left++
		rows[0] = append(rows[0], []string{all[0].path, "cat", "extra"})
	}
	ending := w.pick(".csv", ".CSV", ".tsv")
	if asJSON {
		ending = w.pick(".jsonl", ".ndjson")
	}
	names := []string{"train" + ending}
	if len(rows[1]) > 0 {
		names = append(names, w.pick("val", "Test", "valid")+ending)
	}
	order := w.order // not the lists
	lines := 0
	for i, name := range names {
		text, err := w.list(rows[i], form == 0, asJSON, ending == ".tsv")
		if err != nil {
			return err
		}
		w.put(name, text)
		w.read++
		lines += len(rows[i])
	}
	to.Sources = append(to.Sources, filepath.Join(w.at, names[0]))
	w.add(to, w.at+"/")
	to.Found += lines - len(order) + 1 // lines count, and the image that none names; not those that are named
	return w.writeTree()
}

// list is the text of a list.
func (w *maker) list(rows [][]string, splits, asJSON, tabs bool) ([]byte, error) {
	var b bytes.Buffer
	if w.chance(20) {
		b.WriteString("\ufeff")
	}
	columns := []string{w.pick("path", "file_name", "Image Path"), w.pick("label", "class", "Class_Name"), "split"}
	width := 2
	if splits {
		width = 3
	}
	if asJSON {
		for _, row := range rows {
			text, err := json.Marshal(map[string]string{"path": row[0], "label": row[1]})
			if splits {
				text, err = json.Marshal(map[string]string{"file": row[0], "class": row[1], "split": row[2]})
			}
			if err != nil {
				return nil, err
			}
			b.Write(append(text, '\n'))
		}
		return b.Bytes(), nil
	}
	out := csv.NewWriter(&b)
	out.UseCRLF = w.chance(30)
	if tabs {
		out.Comma = '\t'
	} else if w.chance(20) {
		out.Comma = ';'
	}
	for _, row := range slices.Concat([][]string{columns}, rows) {
		if err := out.Write(row[:width]); err != nil {
			return nil, err
		}
	}
	out.Flush()
	return b.Bytes(), out.Error()
}
